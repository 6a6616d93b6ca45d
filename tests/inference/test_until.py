"""Runs that go on until their chains agree."""

import signal

import jax
import numpy as np
import pytest

import jaxgen
from jaxgen import InputError, kernels
from jaxgen.inference import until
from jaxgen.inference.until import lacking
from jaxgen.metrics.chains import split_rhat
from jaxgen.target.path import likelihood_path
from tests.toys import LinearGaussian

OPTIONS = {"num_chains": 16, "kernel": kernels.HMC(3, jitter=True), "thin": 2, "num_steps": 8}
GOAL = jaxgen.Converged(rhat=1.03, ess=300)


@pytest.fixture(scope="module")
def posterior():
    return LinearGaussian(4, noise=0.5).posterior


@pytest.fixture(scope="module")
def found(posterior):
    return jaxgen.sample(jax.random.key(3), posterior, until=GOAL, **OPTIONS)


def test_it_stops_when_the_criterion_holds_and_not_before(posterior, found):
    assert lacking(found.draws, posterior, GOAL) is None
    count = found.draws.shape[1]
    assert count > 4
    # The criterion is looked at after 4 draws and whenever their number has doubled.
    assert np.log2(count / 4) == int(np.log2(count / 4))
    for fewer in 2 ** np.arange(2, int(np.log2(count))):
        assert lacking(found.draws[:, :fewer], posterior, GOAL) is not None


def test_it_is_the_longer_run_to_the_bit(posterior, found):
    steps = 2 * found.draws.shape[1]
    whole = jaxgen.sample(jax.random.key(3), posterior, **{**OPTIONS, "num_steps": steps})
    np.testing.assert_array_equal(found.draws, whole.draws)
    np.testing.assert_array_equal(found.position, whole.position)
    np.testing.assert_array_equal(found.num_gradients, whole.num_gradients)
    assert found.log_z == whole.log_z
    np.testing.assert_allclose(found.acceptance_rate, whole.acceptance_rate, atol=1e-5)
    assert found.notes == whole.notes


def test_in_a_folder_it_is_the_same_run(posterior, found, tmp_path):
    folder = tmp_path / "run"
    kept = jaxgen.sample(jax.random.key(3), posterior, until=GOAL, folder=folder, **OPTIONS)
    np.testing.assert_array_equal(kept.draws, found.draws)
    np.testing.assert_array_equal(jaxgen.load_run(folder).draws["draws"], found.draws)


def test_an_interrupted_run_goes_on_where_it_was(posterior, found, tmp_path, monkeypatch):
    folder, asked = tmp_path / "run", []

    def stop(draws, target, goal):
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return lacking(draws, target, goal)

    options = {**OPTIONS, "until": GOAL, "folder": folder, "resume": True}
    monkeypatch.setattr(until, "lacking", stop)
    with pytest.raises(KeyboardInterrupt):
        jaxgen.sample(jax.random.key(3), posterior, **options)
    monkeypatch.undo()
    kept = jaxgen.sample(jax.random.key(3), posterior, **options)
    np.testing.assert_array_equal(kept.draws, found.draws)
    assert len(asked) == 3


def test_ctrl_c_ends_it_with_the_draws_so_far(posterior):
    told = []

    def stop(progress):
        if progress.phase == "draw" and progress.done < progress.total and not told:
            told.append(progress)
            signal.raise_signal(signal.SIGINT)

    options = {**OPTIONS, "num_steps": 4000, "thin": 1}
    goal = jaxgen.Converged(ess=1e9)
    result = jaxgen.sample(jax.random.key(3), posterior, until=goal, progress=stop, **options)
    assert 0 < result.draws.shape[1] < 4000
    assert any("interrupted by Ctrl-C" in note for note in result.notes)


def test_the_limit_ends_it_with_a_note(posterior):
    goal = jaxgen.Converged(ess=1e9, most_steps=20)
    result = jaxgen.sample(jax.random.key(0), posterior, until=goal, **OPTIONS)
    assert result.draws.shape[1] == 10
    assert "after 20 steps the chains have not converged as asked: " in result.notes[-1]
    assert "ESS" in result.notes[-1]


def test_of_a_path_it_looks_at_the_latents(posterior):
    goal = jaxgen.Converged(rhat=1.1, ess=100)
    path = likelihood_path(posterior)
    result = jaxgen.sample(jax.random.key(1), path, until=goal, **OPTIONS)
    assert np.max(split_rhat(result.draws)) <= 1.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"until": "soon"}, 'until: expected "converged" or a jaxgen.Converged; got soon'),
        ({"until": jaxgen.Converged(rhat=1.0)}, "until.rhat: expected a number above 1"),
        ({"until": jaxgen.Converged(ess=0)}, "until.ess: expected a positive number"),
        ({"until": jaxgen.Converged(most_steps=3)}, "until.most_steps: expected at least"),
        (
            {"until": "converged", "reduce": lambda total, kept: kept},
            "until: expected None where draws are reduced",
        ),
        ({"until": "converged", "collect": None}, "until: expected draws in memory to look at"),
        ({"until": "converged", "num_steps": 0}, "num_steps: expected at least 1 where until"),
    ],
)
def test_what_cannot_be_asked_for(posterior, options, words):
    with pytest.raises(InputError) as caught:
        jaxgen.sample(jax.random.key(0), posterior, **{**OPTIONS, **options})
    assert words in str(caught.value)


def test_processes_that_would_not_stop_together_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match="until: expected a run of one process; got 2 processes"):
        until.as_goal("converged", 20)


def test_it_is_refused_under_a_transformation(posterior):
    with pytest.raises(InputError, match="until"):
        jax.jit(lambda key: jaxgen.sample(key, posterior, until="converged", **OPTIONS))(
            jax.random.key(0)
        )
