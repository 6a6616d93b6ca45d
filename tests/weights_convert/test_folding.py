"""Spectral and weight normalisation, as torch computes them in evaluation mode."""

import warnings

import numpy as np
import pytest

from jaxgen.core.errors import InputError
from weights_convert.folding import folded

torch = pytest.importorskip("torch", reason="compares with torch: pip install torch")
nn = torch.nn
torch.set_num_threads(1)

LAYERS = {
    "linear": lambda: nn.Linear(5, 4),
    "conv": lambda: nn.Conv2d(3, 4, 2),
    "transposed": lambda: nn.ConvTranspose2d(3, 4, 2),
    "transposed, square": lambda: nn.ConvTranspose2d(4, 4, 3),
    "one output": lambda: nn.Conv2d(4, 1, 3),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
}
WRAPS = {
    "spectral, old": nn.utils.spectral_norm,
    "spectral, new": nn.utils.parametrizations.spectral_norm,
    "weight, old": nn.utils.weight_norm,
    "weight, new": nn.utils.parametrizations.weight_norm,
    "weight, old, of all": lambda layer: nn.utils.weight_norm(layer, dim=None),
    "weight, new, axis 1": lambda layer: nn.utils.parametrizations.weight_norm(layer, dim=1),
}


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("kind", LAYERS)
def test_folded_weights_are_those_that_torch_uses(kind, wrap):
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = WRAPS[wrap](LAYERS[kind]())
    net = nn.Sequential(layer)
    size = layer.weight.shape[0 if "transposed" in kind else 1] * (2 if kind == "grouped" else 1)
    x = torch.randn(2, size) if kind == "linear" else torch.randn(2, size, 5, 5)
    for _ in range(20):  # let the power iteration settle, then train on a little
        net(x).square().mean().backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    net.eval()
    with torch.no_grad():
        net(x)
        wanted = net[0].weight.numpy()
    state = {k: v.numpy() for k, v in net.state_dict().items()}
    found = folded(state)
    assert set(found) == {"0.weight", "0.bias"}
    np.testing.assert_allclose(found["0.weight"], wanted, rtol=1e-5, atol=1e-6)
    assert found["0.weight"].dtype == np.float32


def test_names_that_only_look_like_parts_stay():
    state = {"a.weight_g": np.ones(3), "b_u": np.ones(2), "b_v": np.ones(2), "c.weight": np.ones(1)}
    assert folded(state) == state


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"a_g": (2, 1), "a_v": (3, 4)}, "g .* does not fit v"),
        ({"a_orig": (3, 4), "a_u": (5,), "a_v": (4,)}, "do not fit a weight of shape"),
        ({"a_orig": (3, 4), "a_u": (3,), "a_v": (9,)}, "do not fit a weight of shape"),
    ],
)
def test_parts_that_do_not_fit(parts, words):
    with pytest.raises(InputError, match=words):
        folded({name: np.ones(shape, np.float32) for name, shape in parts.items()})


def test_a_square_weight_whose_axis_nobody_knows_is_refused():
    rng = np.random.default_rng(0)
    state = {
        "a_orig": rng.normal(size=(4, 4)), "a_u": rng.normal(size=4), "a_v": rng.normal(size=4),
    }  # fmt: skip
    with pytest.raises(InputError, match="do not say along which axis: remove it in torch"):
        folded(state)


def test_zero_norms_and_other_parametrisations_are_refused():
    with pytest.raises(InputError, match="norm of zero"):
        folded({"a_g": np.ones((2, 1)), "a_v": np.zeros((2, 3))})
    with pytest.raises(InputError, match="divides by zero"):
        folded({"a_orig": np.zeros((3, 2)), "a_u": np.ones(3), "a_v": np.ones(2)})
    net = nn.Sequential(nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)))
    state = {k: v.numpy() for k, v in net.state_dict().items()}
    with pytest.raises(InputError, match="neither spectral nor weight normalisation; remove it"):
        folded(state)
