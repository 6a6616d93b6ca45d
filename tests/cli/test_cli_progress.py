"""Progress where it is looked at: a notebook's line is written over, a log's is not."""

import io
import itertools
import sys
import types

import pytest

from jaxgen.cli.progress import Reporter
from jaxgen.sampler.results import Progress


def at(phase, done, **more):
    values = {"total": None, "beta": 0.01, "step_size": 0.1, "acceptance_rate": 0.7}
    values |= {"ess": 60.0, "num_gradients": 100, "num_divergent": 0}
    return Progress(phase=phase, done=done, **{**values, **more})


STEPS = [
    at("anneal", 1, beta=0.001),
    at("anneal", 20, beta=1.0, num_divergent=1000),
    at("draw", 20, total=20, beta=1.0),
]


def told(capsys):
    with Reporter(1, num_mcmc_steps=3, steps=30) as reporter:
        reporter.start("bags")
        for step in STEPS:
            reporter.update(step)
    out, err = capsys.readouterr()
    assert out == ""
    return reporter.mode, err


@pytest.fixture
def notebook(monkeypatch):
    """What a notebook's kernel looks like from inside."""
    shell = types.SimpleNamespace(kernel=object())
    fake = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", fake)


def test_a_notebook_has_one_line(notebook, capsys):
    mode, err = told(capsys)
    assert mode == "notebook"
    assert err.count("\n") == 1
    assert err.endswith("\n")
    lines = err.strip("\n").split("\r")[1:]
    assert "compiling" in lines[0]
    assert "1000 divergent" in lines[2]
    # A shorter line covers all of the longer one before it.
    assert all(len(b) >= len(a.rstrip()) for a, b in itertools.pairwise(lines))


def test_a_log_has_a_line_for_each_phase(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    mode, err = told(capsys)
    assert mode == "plain"
    assert "\r" not in err
    lines = err.splitlines()
    assert lines[0] == "[1/1] bags"
    assert [line.split()[0] for line in lines[1:]] == ["anneal", "anneal", "draw"]


def test_a_terminal_has_the_time_before_the_figures(monkeypatch):
    from rich.console import Console

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    console = Console(width=72, record=True, file=io.StringIO())
    with Reporter(2, num_mcmc_steps=3, steps=30) as reporter:
        assert reporter.mode == "live"
        reporter.start("bags")
        console.print(reporter._lines())
        reporter.update(STEPS[0])
        console.print(reporter._lines())
    one, two, three, four = console.export_text().splitlines()
    assert one.startswith("[1/2] bags ")
    assert two.strip() == "compiling"
    # Narrow as the terminal is, the time is whole; what is cut off are the last figures.
    assert three.startswith("[1/2] bags ")
    assert three.rstrip().endswith("left") or three.rstrip().endswith("elapsed")
    assert four.startswith("anneal 1 temperatures · beta 0.001")
    assert len(four) <= 72


def test_quiet_says_nothing(notebook, capsys):
    with Reporter(1, quiet=True) as reporter:
        reporter.start("bags")
        reporter.update(STEPS[0])
    assert capsys.readouterr() == ("", "")
