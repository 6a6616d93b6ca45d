"""Wrapping torch modules that have no recipe."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.core.errors import InputError
from weights_convert.torchax_wrap import wrap

torch = pytest.importorskip("torch", reason="wraps torch modules: pip install torch")
if not importlib.util.find_spec("torchax"):
    pytest.skip("wraps through it: pip install --no-deps torchax", allow_module_level=True)


pytestmark = pytest.mark.filterwarnings("ignore")  # torchax's own


class Odd(torch.nn.Module):
    """Nothing here has a recipe: attention over pixels, a gate, an upsampling."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = torch.nn.Conv2d(2, 6, 3, stride=2, padding=1)
        self.norm = torch.nn.GroupNorm(2, 6)
        self.mix = torch.nn.Linear(6, 6)
        self.up = torch.nn.ConvTranspose2d(6, 3, 4, 2, 1)

    def forward(self, x):
        y = self.norm(self.conv(x))
        flat = y.flatten(2).transpose(1, 2)
        weights = torch.softmax(flat @ flat.transpose(1, 2) / 6**0.5, -1)
        flat = flat + weights @ self.mix(flat)
        y = flat.transpose(1, 2).reshape(y.shape) * torch.sigmoid(y)
        return torch.tanh(self.up(y))


def test_output_gradient_and_batches_agree_with_torch():
    module = Odd()
    x = np.random.default_rng(0).random((3, 8, 8, 2), np.float32)
    network = wrap(module, x[0])
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    y = module(theirs)
    y[1, 2, 3, 3].backward()
    wanted = y.detach().numpy().transpose(0, 2, 3, 1)
    got = jax.jit(jax.vmap(network))(x)
    np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())
    ours = jax.jit(jax.grad(lambda x: network(x)[3, 3, 2]))(x[1])
    gradient = theirs.grad.numpy()[1].transpose(1, 2, 0)
    np.testing.assert_allclose(ours, gradient, atol=1e-5 * np.abs(gradient).max())


def test_weights_are_arguments():
    network = wrap(Odd(), jnp.ones((8, 8, 2)))
    traces = []

    @jax.jit
    def run(network, x):
        traces.append(1)
        return network(x)

    first = run(network, jnp.ones((8, 8, 2)))
    changed = jax.tree.map(lambda leaf: 2.0 * leaf, network)
    assert np.abs(run(changed, jnp.ones((8, 8, 2))) - first).max() > 1e-3
    assert len(traces) == 1


def test_what_cannot_be_wrapped():
    class Two(torch.nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(InputError, match="returns a tensor"):
        wrap(Two(), jnp.ones(3))
    network = wrap(Odd(), jnp.ones((8, 8, 2)))
    with pytest.raises(InputError, match="vmap"):
        network(jnp.ones((2, 8, 8, 2)))
