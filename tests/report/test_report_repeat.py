"""The report's title says what a run is, and its command makes the run again."""

import re
import shlex
from html import unescape
from pathlib import Path

import pytest

from jaxgen.cli import _parse
from jaxgen.report.page import _about, _repeat
from jaxgen.report.reading import Run

COMMANDS = {
    "sample": ["--class", "Ankle boot", "--chains", "8", "--step-size", "0.1"],
    "inpaint": ["my picture.png", "--mask", "box:8,8,12,12", "--noise", "learn"],
    "superres": ["example:3", "--factor", "2", "--class", "coat", "--tile", "8"],
    "demo": ["--full", "--seed", "3"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_of_a_report_parses_to_the_same_arguments(command):
    options = vars(_parse([command, *COMMANDS[command], "--out", "here", "--quiet"]))
    arguments = {k: v for k, v in options.items() if k != "run"}
    run = Run(Path("here"), {"command": command, "arguments": arguments}, ())
    line = unescape(re.search(r"<pre>(.*)</pre>", _repeat(run))[1])
    program, *words = shlex.split(line)
    again = vars(_parse(words))
    assert program == "jaxgen"
    own = ("run", "out", "quiet")
    assert {k: v for k, v in again.items() if k not in own} == {
        k: v for k, v in arguments.items() if k not in own
    }
    assert "image" in _about(run).lower()


def test_what_a_stranger_wrote_into_a_summary_stays_text():
    arguments = {"label": "x; rm -rf / <b>", "a b; c": 1, "chains": 8}
    text = _repeat(Run(Path("x"), {"command": "sample", "arguments": arguments}, ()))
    assert "&lt;b&gt;" in text
    assert "a b; c" not in text
    line = unescape(re.search(r"<pre>(.*)</pre>", text)[1])
    assert shlex.split(line) == ["jaxgen", "sample", "--class=x; rm -rf / <b>", "--chains=8"]


def test_a_run_of_python_has_no_command_line():
    assert _repeat(Run(Path("x"), {"command": "jaxgen.sample", "arguments": {}}, ())) == ""
