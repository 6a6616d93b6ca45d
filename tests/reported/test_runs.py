"""What people reported of runs, their folders and their threads elsewhere."""

import asyncio
import pickle
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import InputError
from jaxgen.core.pytree import as_data
from jaxgen.target.path import AnnealedPath, LogProb

OPTIONS = {"num_chains": 4, "warmup": 2, "thin": 1, "betas": jaxgen.schedules.linear(3)}
OPTIONS |= {"step_size": 0.3, "checkpoint_every": 0}


def normal(y):
    return lambda z: -0.5 * jnp.sum((z - y) ** 2)


def sample(tilt, num_steps=4, **more):
    start = jaxgen.Gaussian.standard(3)
    path = AnnealedPath(LogProb(start), as_data(tilt), start)
    kernel = jaxgen.kernels.MALA()
    return jaxgen.sample(jax.random.key(0), path, kernel, num_steps=num_steps, **OPTIONS, **more)


@pytest.fixture(scope="module")
def tilt():
    return normal(jnp.ones(3))


def test_a_resume_with_another_closure_is_refused(tilt, tmp_path):
    """pyro-ppl/numpyro 1397, 1308 and pymc-devs/pymc 7503: -4.585 came back for -395.18."""
    sample(tilt, folder=tmp_path)
    with pytest.raises(InputError, match=r"closure\.y was .*, is "):
        sample(normal(jnp.full(3, 20.0)), folder=tmp_path, resume=True)


def test_a_finished_run_is_extended_to_the_same_bits(tilt, tmp_path):
    """pyro-ppl/numpyro 1397, 438 and pymc-devs/pymc pull request 7687."""
    sample(tilt, 2, folder=tmp_path)
    longer = sample(tilt, 4, folder=tmp_path, resume=True)
    np.testing.assert_array_equal(longer.draws, sample(tilt, 4).draws)


@pytest.mark.parametrize("folder", ["gs://bucket/run", "s3://bucket/run"])
def test_an_address_is_no_local_folder(tilt, tmp_path, monkeypatch, folder):
    """google/orbax 1652, keras-team/keras pull request 22266, young-geng/EasyLM 25."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="a folder on a disk of this machine; got "):
        sample(tilt, folder=folder)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_without_a_folder_gives_back_the_draws(tilt):
    """pymc-devs/pymc 326, rlouf/mcx 76: all draws were lost."""
    import signal

    sent = []

    def stop(progress):
        if progress.phase == "draw" and not sent:
            sent.append(signal.raise_signal(signal.SIGINT))

    result = sample(tilt, 40_000, progress=stop)
    assert 0 < result.draws.shape[1] < 40_000
    assert result.notes[-1].startswith("interrupted by Ctrl-C after")


def test_a_result_can_be_pickled(tilt):
    """pyro-ppl/numpyro 954, tensorflow/probability 1434."""
    result = sample(tilt)
    copy = pickle.loads(pickle.dumps(result._replace(state=None)))
    np.testing.assert_array_equal(copy.draws, result.draws)


def test_threads_and_a_running_event_loop_do_no_harm(tilt, tmp_path):
    """google/jax 6896, 12701 and google/orbax 1408: threads; a loop that runs already."""
    wanted, found = sample(tilt).draws, {}

    def run(number):
        found[number] = sample(tilt, folder=tmp_path / str(number)).draws

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def within():
        return sample(tilt, folder=tmp_path / "loop").draws

    found["loop"] = asyncio.run(within())
    for draws in found.values():
        np.testing.assert_array_equal(draws, wanted)
