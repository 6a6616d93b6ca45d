"""Notes at a terminal name flags, and only flags that the command has."""

import re

import numpy as np
import pytest

from jaxgen.cli import main
from jaxgen.cli.words import LOGLIK, SAMPLER, in_flags
from jaxgen.sampler import notes
from jaxgen.sampler.state import TemperatureInfo


def worst_notes():
    """Every note that a poor run of `sample` can have."""
    rows = {name: np.zeros(3) for name in TemperatureInfo._fields}
    rows |= {"beta": np.array([0.0, 0.1, 0.4]), "ess": np.full(3, 0.2)}
    history = TemperatureInfo(**rows)
    found = notes.annealing_notes(("HMC", "exact"), 1, history, 9.0, 7, np.array([0.0, 99.0]))
    draws = np.stack([np.full((5, 2), x) + 1e-3 * np.eye(5, 2) for x in range(6)])
    apart = notes.separation_note(draws, history)
    assert len(found) == 6
    assert len(apart) == 1
    return [*found, *apart, *notes.acceptance_note(0.01)]


@pytest.fixture(scope="module")
def flags():
    def of(command, capsys):
        assert main([command, "--help"]) == 0
        return set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))

    return of


@pytest.mark.parametrize("note", worst_notes())
def test_no_argument_of_python_is_left_and_every_flag_is_there(note, flags, capsys):
    said = in_flags(note)
    assert not re.search(r"[a-z]+_[a-z_]+|[A-Z][a-z]+\.", said), said
    assert set(re.findall(r"--[a-z][a-z-]+", said)) <= flags("sample", capsys)
    if re.search(r"num_|step_size|Adaptive\.", note):
        assert "--" in said


def test_the_words_of_the_two_commands():
    text = "use more temperatures or a larger num_mcmc_steps"
    assert in_flags(text) == "use more temperatures or a larger --num-mcmc-steps"
    assert in_flags(text, LOGLIK) == "use more --temperatures"
    assert in_flags("my_num_chains and --num_chains") == "my_num_chains and --num_chains"
    assert in_flags("step_size, or None to adapt it") == "--step-size, or auto to adapt it"


def test_flags_of_loglik(flags, capsys):
    there = flags("loglik", capsys)
    for words in LOGLIK.values():
        assert set(re.findall(r"--[a-z][a-z-]+", words)) <= there
    for words in SAMPLER.values():
        assert set(re.findall(r"--[a-z][a-z-]+", words)) <= flags("inpaint", capsys)
