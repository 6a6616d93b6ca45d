"""What the README shows, runs."""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_python_examples_run(code, capsys):
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    if "result" in names:
        result = names["result"]
        assert result.exactness == "exact"
        assert np.isfinite(result.log_z)
        assert names["images"].shape == (8, 28, 28, 1)
        assert "exact" in capsys.readouterr().out


def test_there_is_an_example_and_it_is_short():
    assert BLOCKS
    assert len(BLOCKS[0].strip().splitlines()) <= 10


def test_pictures_and_files_it_links_to_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link


def test_shell_commands_name_commands_that_exist(capsys):
    from jaxgen.cli import main

    shell = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
    names = set(re.findall(r"^jaxgen (\w+)", shell, re.MULTILINE))
    assert {"demo", "sample", "inpaint", "superres", "train", "models"} <= names
    for name in names:
        assert main([name, "--help"]) == 0
        assert "usage" in capsys.readouterr().out
