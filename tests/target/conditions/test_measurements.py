"""Complex noise, counts, kernels, Fourier samples and probabilities, against SciPy and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, special, stats

import jaxgen
from jaxgen.core.errors import InputError
from jaxgen.target import conditions as c

RNG = np.random.default_rng(0)
IMAGE = jnp.asarray(RNG.uniform(0.1, 0.9, size=(8, 6, 1)), jnp.float32)


def test_complex_noise_is_in_both_parts():
    y = RNG.normal(size=(8, 6)) + 1j * RNG.normal(size=(8, 6))
    term = c.Operator(jnp.asarray(y, jnp.complex64), 0.7, lambda x: jnp.fft.fft2(x[..., 0]))
    term.check(IMAGE.shape)
    residual = y - np.fft.fft2(np.asarray(IMAGE)[..., 0])
    parts = np.stack([residual.real, residual.imag])
    np.testing.assert_allclose(term(IMAGE), stats.norm(0, 0.7).logpdf(parts).sum(), rtol=1e-4)
    # The same as an observation of twice as many real numbers.
    real = c.Operator(
        jnp.stack([y.real, y.imag]).astype(jnp.float32),
        0.7,
        lambda x: jnp.stack([jnp.fft.fft2(x[..., 0]).real, jnp.fft.fft2(x[..., 0]).imag]),
    )
    np.testing.assert_allclose(term(IMAGE), real(IMAGE), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(term)(IMAGE), jax.grad(real)(IMAGE), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(c.LearnedNoise(term)(IMAGE), c.LearnedNoise(real)(IMAGE), rtol=1e-4)
    # An exact fit has a gradient of 0, not NaN.
    exact = c.Operator(jnp.fft.fft2(IMAGE[..., 0]), 0.7, lambda x: jnp.fft.fft2(x[..., 0]))
    np.testing.assert_allclose(jax.grad(exact)(IMAGE), 0, atol=1e-3)


def test_counts_are_poisson():
    y = RNG.poisson(30 * np.asarray(IMAGE) + 2)
    term = c.PoissonCounts(jnp.asarray(y), 30.0, background=2.0)
    term.check(IMAGE.shape)
    want = stats.poisson(30 * np.asarray(IMAGE, np.float64) + 2).logpmf(y).sum()
    np.testing.assert_allclose(term(IMAGE), want, rtol=1e-4)
    # Through an operator; and an image of 0 has no infinite likelihood.
    small = c.PoissonCounts(jnp.ones((4, 3, 1)), 10.0, c.BoxAverage(2))
    small.check(IMAGE.shape)
    assert np.isfinite(small(0 * IMAGE))


@pytest.mark.parametrize(
    ("term", "words"),
    [
        (c.PoissonCounts(jnp.ones((8, 6)), 1.0), r"PoissonCounts.observed: expected shape"),
        (c.PoissonCounts(-jnp.ones((8, 6, 1)), 1.0), "whole numbers of at least 0"),
        (c.PoissonCounts(jnp.ones((8, 6, 1)), 0.0), "PoissonCounts.gain: expected a positive"),
        (c.PoissonCounts(jnp.ones((8, 6, 1)), 1.0, None, -1.0), "PoissonCounts.background"),
        (
            c.Operator(jnp.ones((8, 6)), 1.0, c.Convolution(jnp.ones((2, 2)))),
            "Convolution.kernel: expected a window of odd sides",
        ),
        (
            c.Operator(jnp.ones((8, 6, 1)), 1.0, c.Convolution(jnp.ones((3, 3)), "mirror")),
            "Convolution.boundary",
        ),
        (c.Operator(jnp.ones(4), 1.0, c.Fourier(jnp.arange(4))), "complex64 numbers"),
    ],
)
def test_bad_measurements(term, words):
    with pytest.raises(InputError, match=words):
        term.check(IMAGE.shape)


@pytest.mark.parametrize(
    ("boundary", "mode"),
    [("edge", "nearest"), ("wrap", "wrap"), ("reflect", "mirror"), ("constant", "constant")],
)
def test_convolution_is_scipys(boundary, mode):
    kernel = RNG.normal(size=(3, 5))
    out = c.Convolution(jnp.asarray(kernel, jnp.float32), boundary)(IMAGE)
    want = ndimage.convolve(np.asarray(IMAGE, np.float64)[..., 0], kernel, mode=mode)
    np.testing.assert_allclose(out[..., 0], want, rtol=1e-4, atol=1e-5)


def test_fourier_and_intensity():
    mask = RNG.uniform(size=(8, 6)) < 0.5
    operator = c.Fourier.of(mask)
    want = np.fft.fft2(np.asarray(IMAGE)[..., 0], norm="ortho")[mask]
    np.testing.assert_allclose(operator(IMAGE), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(c.Intensity(operator)(IMAGE), np.abs(want) ** 2, rtol=1e-3)
    slope = jax.grad(lambda x: c.Intensity(operator)(x).sum())(0 * IMAGE)
    np.testing.assert_array_equal(slope, 0)
    with pytest.raises(InputError, match=r"mask: expected 0 and 1 of shape \[H, W\]"):
        c.Fourier.of(np.zeros((8, 6)))


def softmaxed(image):
    return jax.nn.softmax(3 * image.reshape(-1)[:5])


def scores(image):
    return 3 * image.reshape(-1)[:5]


def test_probabilities_give_the_log_probability():
    want = special.log_softmax(3 * np.asarray(IMAGE, np.float64).reshape(-1)[:5])[2]
    term = c.ClassLogSoftmax(softmaxed, 2, takes="probabilities")
    term.check(IMAGE.shape)
    np.testing.assert_allclose(term(IMAGE), want, rtol=1e-5)
    np.testing.assert_allclose(
        c.ClassProbability(softmaxed, 2, takes="probabilities")(IMAGE), np.exp(want), rtol=1e-5
    )
    slope = jax.grad(c.ClassLogSoftmax(scores, 2))(IMAGE)
    np.testing.assert_allclose(jax.grad(term)(IMAGE), slope, rtol=1e-3, atol=1e-6)
    # A sure network: the log-softmax of its probabilities would be -0.9 where 0 is right.
    sure = c.ClassLogSoftmax(lambda x: jax.nn.softmax(100 * jnp.arange(5.0)), 4)
    assert float(sure(IMAGE)) == pytest.approx(-np.log(np.e + 4) + 1, abs=1e-4)
    assert float(jaxgen.core.pytree.replace(sure, takes="probabilities")(IMAGE)) == 0


def test_logits_that_look_like_probabilities_once_are_not_refused():
    term = c.ClassLogSoftmax(scores, 2)
    term.check_outputs(np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.1]]))
    with pytest.raises(InputError, match="ends in a softmax"):
        term.check_outputs(np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]]))


def test_a_label_by_its_name():
    term = c.ClassLogSoftmax("fashion-mnist/cnn", "sneaker")
    assert int(term.label) == 7
    assert int(c.ClassLogSoftmax(jaxgen.load("fashion-mnist/cnn"), "Ankle_boot").label) == 9
    image = jnp.full((28, 28, 1), 0.3)
    same = c.ClassLogSoftmax(jaxgen.load("fashion-mnist/cnn"), 7)
    np.testing.assert_array_equal(term(image), same(image))


def test_sums_begin_with_zero():
    a, b = c.as_condition(lambda x: x.mean()), c.as_condition(lambda x: x.max())
    np.testing.assert_allclose(sum([a, b, a])(IMAGE), 2 * a(IMAGE) + b(IMAGE), rtol=1e-6)
