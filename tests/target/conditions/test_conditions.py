"""Conditions against SciPy and by hand; their algebra; their refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special, stats

import jaxgen
from jaxgen.core.errors import InputError
from jaxgen.target import conditions as c

SHAPE = (8, 8, 1)
RNG = np.random.default_rng(0)
IMAGE = jnp.asarray(RNG.uniform(size=SHAPE), jnp.float32)
OBSERVED = jnp.asarray(RNG.uniform(size=SHAPE), jnp.float32)
MASK = jnp.asarray(RNG.uniform(size=(8, 8)) < 0.4, jnp.float32)


class Small(nnx.Module):
    """Conv, then logits."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 5, (3, 3), rngs=rngs)
        self.out = nnx.Linear(5, 4, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.conv(x)).mean(axis=(-3, -2)))


NETWORK = jaxgen.freeze(Small(nnx.Rngs(0)))
TERMS = {
    "log_softmax": c.ClassLogSoftmax(NETWORK, 2),
    "logit": c.ClassLogit(NETWORK, 2),
    "probability": c.ClassProbability(NETWORK, 2),
    "unit": c.HiddenUnit(NETWORK.at("conv"), 3, (4, 5)),
    "unit_mean": c.HiddenUnit(NETWORK.at("conv"), 3),
    "unit_softmax": c.HiddenUnit(NETWORK.at("conv"), 3, (4, 5), normalise=True),
    "pixels": c.ObservedPixels(OBSERVED, MASK, 0.1),
    "bernoulli": c.BernoulliPixels(OBSERVED, MASK),
    "average": c.LowResolution(c.average_pool(OBSERVED, 4), 0.1, factor=4),
    "stride": c.LowResolution(OBSERVED[::2, ::2], 0.1, factor=2, method="stride"),
    "operator": c.Operator(OBSERVED.sum(axis=0), 0.3, forward=lambda x: x.sum(axis=0)),
    "function": c.Function(lambda x, w: jnp.sum(w * x), (OBSERVED,)),
}


@pytest.mark.parametrize("name", TERMS)
def test_every_condition_jits_vmaps_and_has_a_gradient(name):
    term = TERMS[name]
    term.check(SHAPE)
    value = term(IMAGE)
    assert value.shape == ()
    np.testing.assert_allclose(jax.jit(lambda t, x: t(x))(term, IMAGE), value, rtol=1e-4)
    both = jax.vmap(term)(jnp.stack([IMAGE, OBSERVED]))
    np.testing.assert_allclose(both, [value, term(OBSERVED)], rtol=1e-4, atol=1e-5)
    grad = jax.grad(term)(IMAGE)
    assert grad.shape == SHAPE
    assert np.all(np.isfinite(grad))
    assert np.any(grad != 0)


def test_class_terms_agree_with_scipy():
    logits = np.asarray(NETWORK(IMAGE))
    np.testing.assert_allclose(TERMS["logit"](IMAGE), logits[2], rtol=1e-6)
    np.testing.assert_allclose(
        TERMS["log_softmax"](IMAGE), special.log_softmax(logits)[2], rtol=1e-5
    )
    np.testing.assert_allclose(TERMS["probability"](IMAGE), special.softmax(logits)[2], rtol=1e-5)


def test_hidden_units_are_the_layers_activations():
    activation = np.asarray(NETWORK.at("conv")(IMAGE))
    assert activation.shape == (8, 8, 5)
    np.testing.assert_allclose(TERMS["unit"](IMAGE), activation[4, 5, 3], rtol=1e-5)
    np.testing.assert_allclose(TERMS["unit_mean"](IMAGE), activation[..., 3].mean(), rtol=1e-4)
    np.testing.assert_allclose(
        TERMS["unit_softmax"](IMAGE), special.log_softmax(activation[4, 5])[3], rtol=1e-5
    )


def test_observed_pixels_are_normalised_gaussians():
    seen = np.asarray(MASK) > 0
    want = stats.norm(np.asarray(IMAGE)[seen], 0.1).logpdf(np.asarray(OBSERVED)[seen]).sum()
    np.testing.assert_allclose(TERMS["pixels"](IMAGE), want, rtol=1e-4)
    # Hidden pixels have no say, whatever they hold.
    other = jnp.where(MASK[..., None] > 0, OBSERVED, 0.5)
    np.testing.assert_allclose(c.ObservedPixels(other, MASK, 0.1)(IMAGE), want, rtol=1e-4)


@pytest.mark.parametrize("mask", [MASK, MASK[..., None], MASK > 0])
def test_masks_of_every_accepted_shape_mean_the_same(mask):
    term = c.ObservedPixels(OBSERVED, mask, 0.1)
    term.check(SHAPE)
    np.testing.assert_allclose(term(IMAGE), TERMS["pixels"](IMAGE), rtol=1e-6)


def test_bernoulli_pixels_agree_with_scipy():
    seen = np.asarray(MASK) > 0
    y = (np.asarray(OBSERVED) > 0.5).astype(np.float32)
    want = stats.bernoulli(np.asarray(IMAGE)[seen]).logpmf(y[seen]).sum()
    np.testing.assert_allclose(c.BernoulliPixels(jnp.asarray(y), MASK)(IMAGE), want, rtol=1e-4)


def test_low_resolution_views():
    blocks = np.asarray(IMAGE).reshape(2, 4, 2, 4, 1).mean(axis=(1, 3))
    np.testing.assert_allclose(c.average_pool(IMAGE, 4), blocks, rtol=1e-5)
    want = stats.norm(blocks, 0.1).logpdf(np.asarray(c.average_pool(OBSERVED, 4))).sum()
    np.testing.assert_allclose(TERMS["average"](IMAGE), want, rtol=1e-4)
    want = stats.norm(np.asarray(IMAGE)[::2, ::2], 0.1).logpdf(np.asarray(OBSERVED)[::2, ::2])
    np.testing.assert_allclose(TERMS["stride"](IMAGE), want.sum(), rtol=1e-4)


def test_sums_and_weights():
    a, b = TERMS["pixels"], TERMS["log_softmax"]
    both = a + 2.0 * b
    np.testing.assert_allclose(both(IMAGE), a(IMAGE) + 2 * b(IMAGE), rtol=1e-5)
    np.testing.assert_allclose(((a + b) * 3.0)(IMAGE), 3 * (a(IMAGE) + b(IMAGE)), rtol=1e-5)
    mean = both + (lambda x: x.mean())
    np.testing.assert_allclose(mean(IMAGE), both(IMAGE) + IMAGE.mean(), rtol=1e-5)
    left = (lambda x: x.mean()) + both
    np.testing.assert_allclose(left(IMAGE), mean(IMAGE), rtol=1e-5)
    mean.check(SHAPE)


def test_split_tempered_finds_what_is_held():
    a, b, d = TERMS["pixels"], TERMS["log_softmax"], TERMS["average"]
    tempered, held = c.split_tempered(a + 0.5 * (b.untempered() + d) + 2.0 * b.untempered())
    np.testing.assert_allclose(tempered(IMAGE), a(IMAGE) + 0.5 * d(IMAGE), rtol=1e-5)
    np.testing.assert_allclose(held(IMAGE), 2.5 * b(IMAGE), rtol=1e-5)
    assert c.split_tempered(a)[1] is None
    all_held = c.split_tempered((a + b).untempered())
    np.testing.assert_allclose(all_held[1](IMAGE), a(IMAGE) + b(IMAGE), rtol=1e-5)
    assert float(all_held[0](IMAGE)) == 0.0


@pytest.mark.parametrize(
    ("term", "words"),
    [
        (c.ClassLogSoftmax(NETWORK, 4), "label: expected an integer from 0 to 3; got 4"),
        (c.ClassLogSoftmax(NETWORK, 1.5), "label"),
        (c.HiddenUnit(NETWORK.at("conv"), 5), "HiddenUnit.channel"),
        (c.HiddenUnit(NETWORK.at("conv"), 0, (8, 0)), "HiddenUnit.position row"),
        (c.ObservedPixels(OBSERVED, MASK[:4], 0.1), r"mask: expected shape \(8, 8\)"),
        (c.ObservedPixels(OBSERVED, 0 * MASK, 0.1), "at least one observed pixel"),
        (c.ObservedPixels(OBSERVED, 0.5 * MASK, 0.1), "mask"),
        (c.ObservedPixels(255 * OBSERVED, MASK, 0.1), "Divide 8-bit images by 255"),
        (c.ObservedPixels(OBSERVED * jnp.nan, MASK, 0.1), "observed: expected finite pixels"),
        (c.ObservedPixels(OBSERVED[:4], MASK, 0.1), "observed"),
        (c.ObservedPixels(OBSERVED, MASK, 0.0), "noise: expected a positive number"),
        (c.LowResolution(OBSERVED, 0.1, factor=3), "LowResolution.factor"),
        (c.LowResolution(OBSERVED, 0.1, factor=4), "observed"),
        (c.LowResolution(OBSERVED, 0.1, factor=1, method="cubic"), "LowResolution.method"),
        (c.Operator(OBSERVED, 0.1, forward=lambda x: x.sum()), "Operator.observed"),
        (c.Function(lambda x: x), "a function that returns a scalar"),
    ],
)
def test_bad_input_is_one_line_that_names_it(term, words):
    with pytest.raises(InputError, match=words) as caught:
        term.check(SHAPE)
    assert "\n" not in str(caught.value)
