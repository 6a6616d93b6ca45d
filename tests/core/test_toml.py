"""TOML of others: what would take long, or cannot be printed, is refused first."""

import time

import pytest

from jaxgen import InputError
from jaxgen.cli import main
from jaxgen.core.toml import parse_toml
from weights_convert.sequential import read_description


def test_ordinary_text_is_read():
    assert parse_toml("a.b = 1\nc = [0.5, -9223372036854775808]") == {
        "a": {"b": 1},
        "c": [0.5, -(2**63)],
    }


HOSTILE = {
    "digits": "a = " + "9" * 100_000,
    "hexadecimal": "a = [{b = 0x" + "f" * 100_000 + "}]",
    "65 bits": "a = 9223372036854775808",
    "dots": "a" + ".a" * 50_000 + " = 1",
    "dots of a table": "[a" + ".a" * 50_000 + "]",
    "brackets": "a = " + "[" * 100_000,
    "no TOML": "a = = 1",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_refused_at_once_wherever_it_is_read(kind, tmp_path, capsys):
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"dots|64 bits|nested too|Invalid"):
        parse_toml(HOSTILE[kind])
    path = tmp_path / "a.toml"
    path.write_text(HOSTILE[kind])
    with pytest.raises(InputError):
        read_description(path)
    assert main(["sample", "--config", str(path)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: --config: expected TOML")
    assert printed.count("\n") == 1
    assert len(printed) < 1000
    assert time.monotonic() - begun < 10
