"""The boundary to flax: freezing, cutting at a layer, and one structure for many weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgen import freeze


class Net(nnx.Module):
    """All that freezing has to deal with: BatchNorm, dropout, nested layers."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)])

    def __call__(self, x):
        x = self.drop(nnx.relu(self.norm(self.conv(x))))
        x = x.mean(axis=(-3, -2))
        for block in self.blocks:
            x = block(x)
        return x


X = jax.random.normal(jax.random.key(0), (5, 6, 6, 1))


def test_one_sample_is_the_batchs_first():
    network = freeze(Net(nnx.Rngs(0)))
    np.testing.assert_allclose(network(X)[:1], network(X[:1]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(network)(X), network(X), rtol=1e-5, atol=1e-6)


def test_freezing_leaves_the_module_as_it_was():
    module = Net(nnx.Rngs(0))
    module.train()
    freeze(module)
    assert not module.norm.use_running_average
    assert not module.drop.deterministic


def test_gradient_of_a_lone_sample_is_not_zero():
    network = freeze(Net(nnx.Rngs(0)))
    grad = jax.vmap(jax.grad(lambda x: network(x).sum()))(X)
    assert np.abs(grad).max() > 1e-3


def test_cutting_at_a_layer():
    module = Net(nnx.Rngs(0))
    network = freeze(module)
    conv = network.at("conv")(X[0])
    np.testing.assert_allclose(conv, module.conv(X[0]), rtol=1e-5, atol=1e-6)
    assert network.at("blocks.0")(X[0]).shape == (4,)
    assert "blocks.1" in network.layers
    with pytest.raises(ValueError, match=r"expected one of .*conv.*; got 'fc9'"):
        network.at("fc9")


def test_new_weights_compile_nothing():
    run = jax.jit(lambda network, x: network(x))
    run(freeze(Net(nnx.Rngs(0))), X)
    run(freeze(Net(nnx.Rngs(1))), X)
    assert run._cache_size() == 1
    assert not jnp.allclose(freeze(Net(nnx.Rngs(0)))(X), freeze(Net(nnx.Rngs(1)))(X))


def test_another_type_inside_and_float32_outside():
    network = freeze(Net(nnx.Rngs(0)))
    half = network.astype(jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype("bfloat16")}

    @jax.jit
    def both(network, x):
        return jax.value_and_grad(lambda x: jnp.sum(network(x) ** 2))(x)

    value, gradient = both(network, X)
    rounded, slope = both(half, X)
    assert rounded.dtype == jnp.float32
    assert slope.dtype == jnp.float32
    assert rounded != value
    np.testing.assert_allclose(rounded, value, rtol=0.05)
    np.testing.assert_allclose(slope, gradient, atol=0.05 * float(jnp.abs(gradient).max()))
    assert half.at("conv")(X[0]).dtype == jnp.float32
    np.testing.assert_array_equal(both(half.astype(jnp.float32), X)[0].dtype, jnp.float32)
