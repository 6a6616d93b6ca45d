"""Tiles and devices: the same bits, however chains are spread."""

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.core.pytree import pytree
from jaxgen.sampler import sharding, tile
from tests.toys import LinearGaussian

ROOT = Path(__file__).parents[2]


def mixed(x):
    """All the types that a kernel returns."""
    return {"f": x * 2, "i": x.astype(jnp.int32), "b": x[0] > 1, "h": x.astype(jnp.bfloat16)}


@pytest.mark.parametrize("count", [1, 5, 8, 11])
@pytest.mark.parametrize("tile", [None, 1, 4])
@pytest.mark.parametrize("devices", [1, 2])
def test_over_chains_is_vmap(count, tile, devices):
    mesh = None
    if devices == 2:
        mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("chains",))
    x = jnp.arange(count * 3, dtype=jnp.float32).reshape(count, 3)
    x = sharding.replicate(x, mesh)
    run = jax.jit(lambda x: sharding.over_chains(mixed, (x,), tile, mesh))
    got, wanted = run(x), jax.vmap(mixed)(x)
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for name in wanted:
        assert got[name].dtype == wanted[name].dtype
        np.testing.assert_array_equal(
            np.asarray(got[name], np.float32), np.asarray(wanted[name], np.float32)
        )


def test_ungathered_results_stay_where_they_were_made():
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("chains",))
    x = sharding.replicate(jnp.arange(10.0), mesh)
    out = jax.jit(lambda x: sharding.over_chains(lambda v: v * v, (x,), 3, mesh, gather=False))(x)
    assert out.shape == (12,)
    assert len(out.sharding.device_set) == 2
    first, rows = sharding.local_chains(out, 10)
    assert first == 0
    np.testing.assert_array_equal(rows, np.arange(10.0) ** 2)


@pytest.mark.parametrize(
    "tile", [pytest.param(3, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow), None]
)
def test_samples_do_not_depend_on_devices(tile):
    model = LinearGaussian(4)
    options = {"num_chains": 20, "num_steps": 4, "tile": tile}
    key = jax.random.key(3)
    one = jaxgen.sample(key, model.posterior, devices=jax.devices()[:1], **options)
    two = jaxgen.sample(key, model.posterior, **options)
    np.testing.assert_array_equal(one.draws, two.draws)
    np.testing.assert_array_equal(one.history.beta, two.history.beta)
    assert one.log_z == two.log_z
    assert one.tile == two.tile


@pytest.mark.slow
def test_weights_in_parts_give_the_same_bits(monkeypatch):
    monkeypatch.setattr(sharding, "_LARGE", 1)
    model = LinearGaussian(4)
    options = {"num_chains": 20, "num_steps": 4, "tile": 3}
    key = jax.random.key(3)
    whole = jaxgen.sample(key, model.posterior, **options)
    parts = jaxgen.sample(key, model.posterior, shard_weights=True, **options)
    np.testing.assert_array_equal(whole.draws, parts.draws)
    mesh = sharding.mesh_for(None, 20, 3)
    spread = sharding.replicate(model.posterior.generator.matrix, mesh, spread=True)
    assert spread.addressable_shards[0].data.shape == (2, 4)


def test_the_mesh_has_no_idle_device():
    devices = jax.devices()
    assert sharding.mesh_for(devices, 10, 10) is None
    assert sharding.mesh_for(devices, 20, 10).size == 2
    assert sharding.mesh_for(devices[1:], 20, 10).size == 1


def test_the_choice_of_a_tile():
    @pytree
    class Wide:
        weight: jax.Array

        def __call__(self, z):
            return jnp.tanh(self.weight @ z).sum()

    def choose(width, chains, memory=None):
        function = Wide(jnp.zeros((width, 2)))
        assert tile.bytes_per_chain(function, jnp.zeros(2)) == 8 * width
        return tile.choose_tile(function, jnp.zeros(2), chains, memory, 2)

    assert choose(10, 5) == 5
    assert choose(10, 64) == 64
    # Evenly: two tiles of 50, not 64 and 36 padded to 64.
    assert choose(10, 100) == 50
    # 8 * 2^18 bytes a chain, 16 of them in 32 MiB.
    assert choose(1 << 18, 64) == 16
    assert choose(1 << 18, 64, memory=1) == 1


@pytest.mark.parametrize(
    ("devices", "words"),
    [([], "a list of devices"), (["cpu"], "a list of devices"), ("twice", "each device once")],
)
def test_devices_that_are_none_are_refused(devices, words):
    devices = jax.devices()[:1] * 2 if devices == "twice" else devices
    with pytest.raises(jaxgen.InputError, match=words):
        jaxgen.ais(jax.random.key(0), LinearGaussian(2).posterior, devices=devices)


PROCESS = """
import os
import sys
import time
import jax
port, count, index, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if count > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", count, index)
    # One process is late: the other must not write what this one has yet to look at. (With 45
    # seconds it is later than collectives on CPU wait for their peers.)
    jax.devices()
    time.sleep(float(os.environ.get("LATE", "6")) * index)
import numpy as np
import jaxgen
from jaxgen.sampler import loop
from tests.toys import LinearGaussian
sizes, step = [], loop.step_chunk
def watched(checkpoint, config, run_length, iterations):
    sizes.append(iterations)
    return step(checkpoint, config, run_length, iterations)
loop.step_chunk = watched
# The second process would never make a chunk larger by its own clock.
if index:
    loop._SHORT = 0.0
else:
    loop._SHORT = loop._LONG = 1e9
result = jaxgen.sample(
    jax.random.key(1), LinearGaussian(3).posterior, num_chains=21, tile=4,
    num_steps=int(os.environ.get("STEPS", "6")), thin=2, folder=out, checkpoint_every=0,
    resume="STEPS" in os.environ,
)
assert "STEPS" in os.environ or max(sizes) > sizes[0], sizes
if index == 0:
    assert jax.process_count() == count
    np.savez(out + ".npz", position=np.asarray(result.position), log_z=result.log_z)
"""


def start(devices, *arguments, **more):
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), **more}
    command = [sys.executable, "-c", PROCESS, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(*processes):
    """Wait for all, and show what each printed if one failed."""
    try:
        printed = [process.communicate(timeout=240)[0].decode()[-3000:] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert not any(process.returncode for process in processes), "\n\n".join(printed)


def free_port():
    import socket

    with socket.socket() as connection:
        connection.bind(("127.0.0.1", 0))
        return connection.getsockname()[1]


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path):
    alone, pair = tmp_path / "alone", tmp_path / "pair"
    finish(start(1, 0, 1, 0, alone))
    port = free_port()
    finish(*(start(2, port, 2, index, pair) for index in range(2)))
    a, b = np.load(f"{alone}.npz"), np.load(f"{pair}.npz")
    np.testing.assert_array_equal(a["position"], b["position"])
    assert a["log_z"] == b["log_z"]
    one, both = jaxgen.load_run(alone), jaxgen.load_run(pair)
    assert len(list((pair / "draws").glob("*.p000?.safetensors"))) >= 2
    assert one.draws["draws"].shape == (21, 3, 3)
    np.testing.assert_array_equal(one.draws["draws"], both.draws["draws"])


@pytest.mark.slow
def test_processes_may_come_and_go(tmp_path):
    alone, changing = tmp_path / "alone", tmp_path / "changing"
    finish(start(1, 0, 1, 0, alone))
    for count, steps in ((1, "2"), (2, "4"), (1, "6")):
        port = free_port()
        more = {"STEPS": steps, "LATE": "0"}
        finish(*(start(2, port, count, index, changing, **more) for index in range(count)))
    a, b = np.load(f"{alone}.npz"), np.load(f"{changing}.npz")
    np.testing.assert_array_equal(a["position"], b["position"])
    one, other = jaxgen.load_run(alone), jaxgen.load_run(changing)
    assert other.draws["draws"].shape == (21, 3, 3)
    np.testing.assert_array_equal(one.draws["draws"], other.draws["draws"])
    assert len(list((changing / "draws").glob("*.p000?.safetensors"))) >= 2
    assert list((changing / "draws").glob("00000002-00000002.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("dying", [0, 1])
def test_the_survivor_names_the_process_that_died(tmp_path, dying):
    """In the middle of sampling: the last line, at once, and not an abort in JAX's clean-up.

    Where the first process dies, with JAX's service, JAX itself may end the others before.
    """
    port, folder = free_port(), tmp_path / "run"
    more = {"STEPS": "20000", "LATE": "0"}
    running = [start(1, port, 2, index, folder, **more) for index in range(2)]
    try:
        deadline = time.monotonic() + 300
        while not list(folder.glob("draws/*.safetensors")):
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in running)
            time.sleep(0.5)
        running[dying].kill()
        printed = running[1 - dying].communicate(timeout=60)[0].decode()
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert running[1 - dying].returncode != 0
    if dying == 1:
        last = printed.strip().splitlines()[-1]
        assert "process 1 of 2 is gone. Start all again with resume=True" in last
        assert running[0].returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 3, 8])
def test_simulated_devices_give_what_one_gives(tmp_path, devices):
    finish(start(1, 0, 1, 0, tmp_path / "one"))
    finish(start(devices, 0, 1, 0, tmp_path / "many"))
    a, b = np.load(tmp_path / "one.npz"), np.load(tmp_path / "many.npz")
    np.testing.assert_array_equal(a["position"], b["position"])
    assert a["log_z"] == b["log_z"]
