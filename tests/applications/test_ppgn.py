"""PPGN and DGN-AM, step for step against their published programs written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import InputError, kernels
from jaxgen.applications.ppgn import (
    Denoised,
    Encoded,
    PlugAndPlay,
    PPGNUpdate,
    Unit,
    class_gradient,
    run_chains,
    update,
)
from jaxgen.core.pytree import pytree
from jaxgen.kernels import KernelParams, StepContext
from jaxgen.target.path import likelihood_path
from jaxgen.target.priors import Gaussian, normal_like

SIZE, PIXELS, CLASSES = 6, 16, 5
RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(PIXELS, SIZE)) / 3, 0.1 * RNG.normal(size=PIXELS)
W, C = RNG.normal(size=(CLASSES, PIXELS)), RNG.normal(size=CLASSES)
U = RNG.normal(size=(SIZE, PIXELS)) / 2


@pytree
class Generator:
    matrix: jax.Array
    offset: jax.Array

    def __call__(self, h):
        return jnp.tanh(self.matrix @ h + self.offset).reshape(4, 4, 1)


@pytree
class Linear:
    matrix: jax.Array
    offset: jax.Array

    def __call__(self, image):
        return self.matrix @ image.reshape(-1) + self.offset


@pytree
class Rectified:
    matrix: jax.Array

    def __call__(self, image):
        return jax.nn.relu(self.matrix @ image.reshape(-1))


def f32(x):
    return jnp.asarray(x, jnp.float32)


def model(prior=True, **more):
    return PlugAndPlay(
        Generator(f32(A), f32(B)),
        Linear(f32(W), f32(C)),
        Encoded(Rectified(f32(U))) if prior else None,
        Gaussian.standard(SIZE),
        **more,
    )


def softmax(v):
    e = np.exp(v - v.max())
    return e / e.sum()


def noises(key, chain, count):
    """First code and noise of each step of a chain, as `run_chains` draws them."""
    chain_key = jax.random.fold_in(key, chain)
    first = normal_like(jax.random.fold_in(chain_key, 0), jnp.zeros(SIZE))
    steps = [
        normal_like(jax.random.split(jax.random.fold_in(chain_key, i + 1), 3)[0], jnp.zeros(SIZE))
        for i in range(count)
    ]
    return np.asarray(first, np.float64), [np.asarray(n, np.float64) for n in steps]


def test_ppgn_program_step_for_step():
    """d = e1 (E(x) - h) + e2 J'(1 - p) dl + N(0, e3^2); h += step d / mean|d|; clip to 0..30."""
    e1, e2, e3, lr, lr_end, n = 0.3, 1.0, 0.2, 0.5, 0.1, 4
    rule = PPGNUpdate.ppgn(e1, e3, first_step=lr, last_step=lr_end)
    key, labels = jax.random.key(3), [2, 4]
    got = run_chains(key, model(), labels, rule, num_steps=n, num_chains=2)
    for chain in range(2):
        h, noise = noises(key, chain, 9)
        condition, codes, probabilities, i = 0, [], [], 0
        while True:
            step = lr + (lr_end - lr) * min(i / n, 1.0)
            x = np.tanh(A @ h + B)
            p = softmax(W @ x + C)
            unit = labels[condition]
            codes.append(h)
            probabilities.append(p[unit])
            d_prior = np.maximum(U @ x, 0) - h
            one_hot = np.zeros(CLASSES)
            one_hot[unit] = 1 - p[unit]
            d_condition = A.T @ ((1 - x**2) * (W.T @ one_hot))
            d = e1 * d_prior + e2 * d_condition + e3 * noise[i]
            h = np.clip(h + step / np.abs(d).mean() * d, 0, 30)
            # The next condition, after n steps; the first has had one more by then.
            if i > 0 and i % n == 0:
                condition += 1
                if condition == len(labels):
                    break
            i += 1
        np.testing.assert_allclose(got.codes[chain], codes, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(got.probabilities[chain], probabilities, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(got.last[chain], h, rtol=1e-4, atol=1e-4)
    assert got.labels.tolist() == [2] * 5 + [4] * 4
    assert got.num_gradients == 9
    assert got.exactness == "approximate"


def test_dgnam_program_step_for_step():
    """x = x0 + step gx / mean|gx|;  gh = J'(x - x0);  h += step gh / mean|gh|; clip; decay."""
    start, end, n, decay = 2.0, 1e-10, 7, 0.99
    bounds = np.linspace(0.5, 3.0, SIZE)
    rule = PPGNUpdate.dgnam(start, f32(bounds), decay=decay)
    key = jax.random.key(5)
    got = run_chains(key, model(prior=False), [3], rule, num_steps=n, num_chains=1)
    h, _ = noises(key, 0, 0)
    for i in range(n):
        np.testing.assert_allclose(got.codes[0, i], h, rtol=1e-4, atol=1e-5)
        step = start + (end - start) * i / n
        x0 = np.tanh(A @ h + B)
        gx = W[3]
        x = x0 + step * gx / np.abs(gx).mean()
        gh = A.T @ ((1 - x0**2) * (x - x0))
        h = h + step * gh / np.abs(gh).mean()
        h = np.minimum(np.maximum(h, 0), bounds) * decay
    np.testing.assert_allclose(got.last[0], h, rtol=1e-4, atol=1e-5)


def test_inpainting_clamps_and_pulls_towards_the_context():
    """Eq. 25 in each forward pass, the class gradient times M, and the context's term."""
    e1, e2, e4 = 0.05, 0.7, 0.4
    mask, real = RNG.integers(0, 2, PIXELS), RNG.uniform(size=PIXELS)
    play = model(mask=f32(mask).reshape(4, 4, 1), real=f32(real).reshape(4, 4, 1))
    rule = PPGNUpdate(e1, e2, 0.0, e4)
    h = RNG.normal(size=SIZE)
    made = np.tanh(A @ h + B)
    x = mask * made + (1 - mask) * real
    p = softmax(W @ x + C)
    g = mask * (W.T @ (np.eye(CLASSES)[1] - p))
    pull = e2 * g + e4 * ((1 - mask) * (real - made))
    want = h + e1 * (np.maximum(U @ x, 0) - h) + A.T @ ((1 - made**2) * pull)
    got, probability = update(play, rule, f32(h), jnp.int32(1), 1.0, jnp.zeros(SIZE))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(probability, p[1], rtol=1e-4)
    np.testing.assert_allclose(play.image(f32(h)).reshape(-1), x, rtol=1e-4)


def test_equation_5_is_the_kernel_mala_approx():
    e1, e2, e3 = 0.05, 0.02, 0.3
    shrink = lambda h: 0.8 * h  # noqa: E731
    play = PlugAndPlay(
        Generator(f32(A), f32(B)), Linear(f32(W), f32(C)), Denoised(shrink), Gaussian.standard(SIZE)
    )
    prior = jaxgen.ScorePrior(lambda h: shrink(h) - h, Gaussian.standard(SIZE))
    condition = jaxgen.ClassLogSoftmax(play.classifier, 1)
    path = likelihood_path(jaxgen.Posterior(prior, play.generator, condition))
    kernel = kernels.MALAApprox(e1, e2, e3)
    h, key = f32(RNG.normal(size=SIZE)), jax.random.key(0)
    params = KernelParams(jnp.ones(()), jnp.ones(SIZE))
    context = StepContext(path, jnp.ones(()), params, jnp.int32(1))
    state, _ = kernel.step(key, kernel.init(path, h), context)
    got, _ = update(play, PPGNUpdate(e1, e2, e3), h, jnp.int32(1), 1.0, normal_like(key, h))
    np.testing.assert_allclose(got, state.position, rtol=1e-5)


@pytest.mark.parametrize("kind", ["logit", "softmax", "log_softmax"])
def test_class_gradients_are_derivatives(kind):
    logits, label = f32(RNG.normal(size=CLASSES)), 2
    function = {"logit": lambda v: v, "softmax": jax.nn.softmax, "log_softmax": jax.nn.log_softmax}
    want = jax.grad(lambda v: function[kind](v)[label])(logits)
    np.testing.assert_allclose(class_gradient(logits, label, kind), want, atol=1e-6)


def test_the_programs_class_gradient_drops_the_other_classes():
    logits = f32([1.0, 0.0, -1.0])
    right = class_gradient(logits, 0, "log_softmax")
    theirs = class_gradient(logits, 0, "ppgn")
    np.testing.assert_allclose(theirs, right * jnp.array([1.0, 0.0, 0.0]), atol=1e-6)


def test_chains_do_not_depend_on_each_other_or_on_the_tile():
    key = jax.random.key(1)
    rule = PPGNUpdate(0.1, 0.5, 0.2)
    many = run_chains(key, model(), [0, 1], rule, num_steps=3, num_chains=4)
    few = run_chains(key, model(), [0, 1], rule, num_steps=3, num_chains=2, tile=1)
    np.testing.assert_allclose(many.codes[:2], few.codes, rtol=1e-5, atol=1e-6)
    for every, labels in ((2, [0, 0, 1]), (4, [0, 1])):  # 4 leaves two steps over
        thinned = run_chains(key, model(), [0, 1], rule, num_steps=3, num_chains=4, every=every)
        np.testing.assert_allclose(thinned.codes, many.codes[:, ::every], rtol=1e-6)
        np.testing.assert_allclose(thinned.last, many.last, rtol=1e-6)
        assert thinned.labels.tolist() == labels


def test_resets_draw_new_codes():
    key = jax.random.key(1)
    still = PPGNUpdate(0.0, 0.0, 0.0)
    result = run_chains(key, model(), [0], still, num_steps=9, num_chains=3, reset_every=4)
    for chain in result.codes:
        assert np.array_equal(chain[0], chain[3])
        assert not np.array_equal(chain[3], chain[4])
        assert np.array_equal(chain[4], chain[7])
        assert not np.array_equal(chain[7], chain[8])


def test_start_and_filter():
    code = RNG.normal(size=SIZE)
    result = run_chains(
        jax.random.key(0),
        model(),
        [2],
        PPGNUpdate(0.0, 0.5, 0.0),
        num_steps=60,
        num_chains=2,
        start=code,
    )
    np.testing.assert_allclose(result.codes[:, 0], np.tile(code, (2, 1)), rtol=1e-6)
    # Without noise two chains from one code are one chain, and the class becomes likely.
    assert np.array_equal(result.codes[0], result.codes[1])
    assert result.probabilities[0, -1] > max(0.9, result.probabilities[0, 0])
    codes, labels = result.confident(0.9)
    keep = result.probabilities >= 0.9
    assert codes.shape == (keep.sum(), SIZE)
    assert set(labels) == {2}


def test_a_unit_is_a_softmax_over_channels_at_a_place():
    image = jnp.arange(48.0).reshape(4, 4, 3)
    np.testing.assert_array_equal(Unit(lambda x: 2 * x, (1, 2))(image), 2 * image[1, 2])


def test_no_direction_is_no_step():
    flat = PlugAndPlay(
        lambda h: jnp.ones((2, 2, 1)) + 0 * h[0],
        lambda x: jnp.zeros(3) * x[0, 0],
        None,
        Gaussian.standard(2),
    )
    for rule in (PPGNUpdate.dgnam(), PPGNUpdate.ppgn(epsilon3=0.0)):
        code = f32([1.0, 2.0])
        got, _ = update(flat, rule, code, jnp.int32(0), 1.0, jnp.zeros(2))
        np.testing.assert_allclose(got, code * rule.decay)


def test_bad_input():
    key = jax.random.key(0)
    with pytest.raises(InputError, match="labels"):
        run_chains(key, model(), [CLASSES])
    with pytest.raises(InputError, match="labels"):
        run_chains(key, model(), [])
    with pytest.raises(InputError, match=r"PPGNUpdate\.gradient"):
        run_chains(key, model(), [0], PPGNUpdate(gradient="logits"))
    with pytest.raises(InputError, match="epsilon3"):
        run_chains(key, model(), [0], PPGNUpdate(epsilon3=-1.0))
    with pytest.raises(InputError, match="start"):
        run_chains(key, model(), [0], start=np.zeros(3))
    with pytest.raises(InputError, match="mask, real"):
        run_chains(key, model(mask=jnp.ones((4, 4, 1))), [0])
    bad = PlugAndPlay(
        Generator(f32(A), f32(B)), lambda x: x @ jnp.ones(7), None, Gaussian.standard(SIZE)
    )
    with pytest.raises(InputError, match="fit each other"):
        run_chains(key, bad, [0])
