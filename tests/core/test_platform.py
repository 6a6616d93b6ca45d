"""Programs take the form that is fastest on the devices that will run them."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.core.platform import compiling_for, on_mesh, platform, platform_of
from jaxgen.models.conv.layers import conv
from jaxgen.sampler import tile

IMAGE, KERNEL = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))


def forms(function, *args):
    """How often a traced program convolves by XLA, and how often it multiplies matrices."""
    text = str(jax.make_jaxpr(function)(*args))
    return text.count("conv_general_dilated["), text.count("dot_general[")


def test_convolutions_follow_what_is_traced_for():
    def network(image):
        return conv(image, KERNEL, padding=1)

    assert platform() == "cpu"
    assert forms(network, IMAGE) == (0, 1)
    for name in ("tpu", "gpu"):
        with compiling_for(name):
            assert platform() == name
            assert forms(network, IMAGE) == (1, 0)
    assert platform() == "cpu"


def test_a_compiled_program_is_not_taken_for_another_platform():
    network = jax.jit(lambda image: conv(image, KERNEL, padding=1))
    here = network.lower(IMAGE).as_text()
    with compiling_for("tpu"):
        there = network.lower(IMAGE).as_text()
    assert "stablehlo.convolution" not in here
    assert "stablehlo.convolution" in there
    assert network.lower(IMAGE).as_text() == here


def test_a_network_is_exported_in_the_form_of_its_target():
    generator = jaxgen.load("fashion-mnist/dcgan")

    def gradient(z):
        return jax.grad(lambda z: generator(z).sum())(z)

    z = jax.ShapeDtypeStruct((64,), jnp.float32)
    with compiling_for("tpu"):
        exported = jax.export.export(jax.jit(gradient), platforms=["tpu"])(z)
    assert exported.platforms == ("tpu",)
    assert exported.mlir_module().count("stablehlo.convolution") >= 4
    here = jax.export.export(jax.jit(gradient))(z)
    assert here.mlir_module().count("stablehlo.convolution") == 0


def test_devices_say_their_platform():
    def mesh(name):
        return SimpleNamespace(devices=np.asarray([SimpleNamespace(platform=name)]))

    for name, wanted in (("tpu", "tpu"), ("cuda", "gpu"), ("rocm", "gpu"), ("cpu", "cpu")):
        assert platform_of(mesh(name).devices) == wanted
        with on_mesh(mesh(name)):
            assert platform() == wanted
    with compiling_for("tpu"), on_mesh(None):
        assert platform() == "tpu"


def test_another_platform_is_refused():
    with (
        pytest.raises(jaxgen.InputError, match="platform: expected one of cpu, gpu, tpu; got 'x'"),
        compiling_for("x"),
    ):
        pass


@pytest.mark.parametrize(
    ("chains", "devices", "wanted"),
    [(1000, 1, 1024), (1000, 8, 128), (1000, 3, 384), (64, 1, 64), (64, 4, 16), (128, 4, 128)],
)
def test_a_tpu_computes_with_whole_rows_of_its_lanes(chains, devices, wanted):
    function = jnp.sum
    with compiling_for("tpu"):
        assert tile.choose_tile(function, jnp.zeros(2), chains, None, devices) == wanted


def test_accelerators_keep_more_of_every_chain():
    def function(z):
        return jnp.tanh(jnp.broadcast_to(z, (100, 2))).sum()

    assert tile.bytes_per_chain(function, jnp.zeros(2)) == 800
    for name in ("gpu", "tpu"):
        with compiling_for(name):
            assert tile.bytes_per_chain(function, jnp.zeros(2)) == 1320


def test_a_tpu_with_little_memory_has_fewer_whole_rows():
    def function(z):
        return jnp.tanh(jnp.broadcast_to(z, (256, 2))).sum()

    with compiling_for("tpu"):
        each = tile.bytes_per_chain(function, jnp.zeros(2))
        for lanes, wanted in ((300, 256), (200, 128), (100, 100)):
            chosen = tile.choose_tile(function, jnp.zeros(2), 1000, lanes * each, 1)
            assert chosen <= lanes
            assert chosen == wanted
