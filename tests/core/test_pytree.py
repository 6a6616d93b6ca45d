"""What users compose prints short, and no array unasked."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxgen
from jaxgen.core.fingerprint import describe
from jaxgen.core.pytree import pytree, static


@pytree
class Thing:
    """Something of everything."""

    array: jax.Array
    number: float = 0.5
    tree: tuple = ()
    name: str = static(default="a")
    remark: str = static(default="nothing", remark=True)


def test_arrays_are_shown_as_types_and_shapes():
    thing = Thing(jnp.zeros((3, 2)), 0.25, (np.ones(4), {"x": jnp.float32(2.5)}))
    assert repr(thing) == (
        "Thing(array=float32[3,2], number=0.25, tree=(float64[4], {'x': 2.5}), name='a')"
    )
    many = Thing(jnp.zeros(1), 0.0, tuple(range(100)))
    assert "... 95 more" in repr(many)
    seen = []
    jax.jit(lambda thing: seen.append(repr(thing)))(thing)
    assert "number=float32[]" in seen[0]


def test_a_posterior_fits_a_line():
    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard(64),
        jaxgen.load("fashion-mnist/dcgan"),
        jaxgen.ClassLogSoftmax(jaxgen.load("fashion-mnist/cnn"), 7),
    )
    text = repr(posterior)
    assert len(text) < 300
    assert "Network(539,841 parameters, [64] -> [28, 28, 1])" in text
    assert "Gaussian(mean=float32[64], scale=float32[64])" in text


def test_networks_say_what_was_done_to_them():
    network = jaxgen.freeze(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), input_shape=(3,))
    assert repr(network) == "Network(16 parameters, [3] -> [4])"
    assert repr(network.astype(jnp.bfloat16)) == "Network(16 parameters, [3] -> [4], bfloat16)"
    assert repr(jaxgen.freeze(nnx.Linear(3, 4, rngs=nnx.Rngs(0)))) == "Network(16 parameters)"
    cut = jaxgen.load("fashion-mnist/cnn").at("conv2")
    assert repr(cut).endswith("cut at conv2)")


def test_remarks_make_no_other_run():
    assert describe(Thing(jnp.zeros(1), remark="x")) == describe(Thing(jnp.zeros(1), remark="y"))
    assert describe(Thing(jnp.zeros(1), name="x")) != describe(Thing(jnp.zeros(1), name="y"))
