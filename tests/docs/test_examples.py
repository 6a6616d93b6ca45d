"""The example scripts: each is a notebook, and the notebooks execute."""

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "examples"


def notebooks():
    spec = importlib.util.spec_from_file_location("notebooks", FOLDER / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_script_is_listed_and_has_cells():
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {"notebooks"}
    assert scripts == set(notebooks().NAMES)
    for name in scripts:
        assert (FOLDER / f"{name}.py").read_text().count("\n# %%") >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["class_samples", "evidence", "inpainting"])
def test_notebooks_execute(name, tmp_path):
    for module in ("jupytext", "nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(module, reason="pip install 'jaxgen[examples]'")
    import nbformat

    path = notebooks().make(name, tmp_path)
    cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    outputs = [output for cell in cells for output in cell.outputs]
    if name == "evidence":
        assert "exact" in outputs[-1]["text"]
    else:
        assert any("image/png" in output.get("data", {}) for output in outputs)
