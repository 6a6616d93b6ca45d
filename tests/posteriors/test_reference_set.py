"""Every answer of the reference set, verified by a way that does not share its derivation."""

import jax
import numpy as np
import pytest
from scipy import special, stats

import jaxgen
from jaxgen import posteriors
from jaxgen.posteriors.linear_gaussian import LinearGaussian

EXACT = [name for name in posteriors.names() if not name.startswith(("dcgan", "vae"))]
BATCH = 3000
PLANES = [name for name in EXACT if posteriors.get(name).dimension == 2]


@jax.jit
def log_joint(posterior, z):
    return jax.vmap(posterior)(z)


@jax.jit
def value_and_gradient(posterior, z):
    return jax.vmap(jax.value_and_grad(posterior))(z)


def evaluate(posterior, z):
    """In batches of one size, so that posteriors of one structure share a program."""
    whole = np.zeros((-(-len(z) // BATCH) * BATCH, z.shape[1]), np.float32)
    whole[: len(z)] = z
    parts = [log_joint(posterior, part) for part in whole.reshape(-1, BATCH, z.shape[1])]
    return np.concatenate(parts).astype(np.float64)[: len(z)]


class Proposal:
    """A mixture of normals near a posterior: around fitted modes, or around exact draws."""

    def __init__(self, centres, factors, weights):
        self.centres, self.factors, self.log_weights = centres, factors, np.log(weights)

    def sample(self, rng, count):
        which = rng.choice(len(self.centres), size=count, p=np.exp(self.log_weights))
        noise = rng.normal(size=(count, self.centres.shape[1]))
        factors = self.factors[which % len(self.factors)]
        return self.centres[which] + np.einsum("nij,nj->ni", factors, noise)

    def log_prob(self, z):
        constant = 0.5 * z.shape[1] * np.log(2 * np.pi)
        terms = np.empty((len(self.centres), len(z)))
        for f, factor in enumerate(self.factors):
            white = np.linalg.solve(factor, z.T)
            mine = slice(f, None, len(self.factors))
            centres = np.linalg.solve(factor, self.centres[mine].T)
            square = (centres**2).sum(0)[:, None] + (white**2).sum(0) - 2 * centres.T @ white
            terms[mine] = -0.5 * square - np.log(np.diag(factor)).sum() - constant
        return special.logsumexp(terms + self.log_weights[:, None], axis=0)


def proposals(reference, draws):
    """One normal for each mode, and kernels of three widths around 1000 exact draws."""
    modes = reference.modes
    labels = np.zeros(len(draws), int) if modes is None else modes(draws)
    if labels.max() < 16:
        parts = [draws[labels == k] for k in np.unique(labels)]
        # Enough of each for a covariance; else the whole one serves.
        shapes = [
            np.cov(p.T) if len(p) > 4 * p.shape[1] else np.diag(p.var(0) + 1e-8) for p in parts
        ]
        if modes is None and reference.covariance is not None:
            shapes = [reference.covariance]
        factors = np.stack([np.linalg.cholesky(s) for s in shapes])
        weights = np.array([len(p) for p in parts]) / len(draws)
        yield Proposal(np.stack([p.mean(0) for p in parts]), factors, weights)
    factor = np.linalg.cholesky(np.cov(draws.T))
    if reference.dimension <= 16:
        for width in (0.5, 0.25, 0.1):
            yield Proposal(draws[:1000], width * factor[None], np.full(1000, 1e-3))


def bridge(target, proposal, posterior, rng):
    """log Z by bridge sampling (Meng & Wong 1996) from draws of both, and its standard error."""
    other = proposal.sample(rng, len(target))
    first = evaluate(posterior, target) - proposal.log_prob(target)
    second = evaluate(posterior, other) - proposal.log_prob(other)
    log_z = float(np.median(first))
    for _ in range(500):
        up = special.expit(second - log_z)  # of draws of the proposal
        down = special.expit(log_z - first)  # of draws of the target
        if not (up.mean() > 1e-12 and down.mean() > 1e-12):
            return log_z, np.inf  # the two have nothing in common
        step = np.log(up.mean()) - np.log(down.mean())
        log_z += step
        if abs(step) < 1e-9:
            break
    relative = up.var() / up.mean() ** 2 + down.var() / down.mean() ** 2
    return log_z, float(np.sqrt(relative / len(target)))


@pytest.mark.parametrize("name", EXACT)
def test_log_z_by_bridge_sampling(name):
    reference = posteriors.get(name)
    rng = np.random.default_rng(0)
    target = reference.draws(jax.random.key(5), 3000).astype(np.float64)
    fitted = reference.draws(jax.random.key(6), 3000).astype(np.float64)
    tries = [bridge(target, q, reference.posterior, rng) for q in proposals(reference, fitted)]
    log_z, error = min(tries, key=lambda pair: pair[1])
    assert error < (0.4 if name == "banana-16" else 0.1)
    assert abs(log_z - reference.log_z) < 4 * error + 2e-3


@pytest.mark.parametrize("name", PLANES)
def test_a_plane_by_summing_over_it(name):
    reference = posteriors.get(name)
    side = np.linspace(-6, 6, 1201)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    # Cells whose middle is on the edge of the half space count half.
    log_density = evaluate(reference.posterior, grid)
    edge = (grid[:, 0] == 0) & name.startswith("half-space")
    weights = np.exp(log_density - reference.log_z) * np.where(edge, 0.5, 1.0)
    weights *= (side[1] - side[0]) ** 2
    # This grid is coarse for the ridges of the toys.
    close = 2e-2 if name.startswith("toy") else 2e-3
    assert abs(np.log(weights.sum())) < close
    mean = weights @ grid
    np.testing.assert_allclose(mean, reference.mean, atol=close)
    np.testing.assert_allclose(weights @ (grid - mean) ** 2, reference.variance, atol=close)
    if reference.modes is not None:
        found = np.bincount(reference.modes(grid), weights, len(reference.modes.masses))
        np.testing.assert_allclose(found, reference.modes.masses, atol=max(close, 5e-3))


@pytest.mark.parametrize("name", EXACT)
def test_draws_have_the_moments_and_the_masses(name):
    reference = posteriors.get(name)
    count = 20_000
    z = reference.draws(jax.random.key(1), count)
    assert z.shape == (count, reference.dimension)
    assert z.dtype == np.float32
    z = z.astype(np.float64)
    size = reference.dimension
    # The largest of d normals, at one in ten thousand.
    most = stats.norm.isf(0.5e-4 / size)
    off = (z.mean(0) - reference.mean) / np.sqrt(reference.variance / count)
    assert np.abs(off).max() < most
    square = (z - reference.mean) ** 2
    error = square.std(0) / np.sqrt(count)
    assert np.abs((square.mean(0) - reference.variance) / error).max() < most + 1
    if reference.covariance is not None:
        factor = np.linalg.cholesky(reference.covariance)
        white = np.linalg.solve(factor, (z - reference.mean).T)
        direction = np.random.default_rng(2).normal(size=(size, 5)) / np.sqrt(size)
        ratio = np.var(direction.T @ white, axis=1) / np.sum(direction**2, axis=0)
        np.testing.assert_allclose(ratio, 1.0, atol=0.1)
    if reference.modes is not None:
        masses = reference.modes.masses
        assert masses.sum() == pytest.approx(1.0)
        large = masses > 1e-2
        share = np.bincount(reference.modes(z), minlength=len(masses)) / count
        error = np.sqrt(masses * (1 - masses) / count) + 1e-4
        assert np.abs((share - masses) / error)[large].max(initial=0.0) < 4.5


# The ten classes are one program with other data, which each test compiles anew.
CLASSES = [name for name in posteriors.names() if name.startswith("dcgan-class-")]
QUICK = [
    pytest.param(name, marks=pytest.mark.slow) if name in CLASSES[1:] else name
    for name in posteriors.names()
]


@pytest.mark.parametrize("name", QUICK)
def test_protocol(name):
    """Every posterior is a scalar with finite gradients, alone, jitted and in a batch."""
    reference = posteriors.get(name)
    posterior = reference.posterior
    posterior.check()
    assert reference.name == name
    assert reference.how.endswith(".")
    assert reference.mean.shape == reference.variance.shape == (reference.dimension,)
    assert reference.mean_error.shape == (reference.dimension,)
    assert np.all(reference.variance > 0)
    assert reference.log_z_error >= 0
    if reference.covariance is not None:
        np.testing.assert_allclose(np.diag(reference.covariance), reference.variance)
        assert np.linalg.eigvalsh(reference.covariance).min() > 0
    z = jax.random.normal(jax.random.key(2), (3, reference.dimension))
    value, gradient = value_and_gradient(posterior, z)
    assert value.shape == (3,)
    assert gradient.shape == z.shape
    assert np.isfinite(gradient).all()
    small, large = value_and_gradient(posterior, 1e-3 * z)[0], evaluate(posterior, 1e-3 * z)
    np.testing.assert_allclose(small, large, rtol=1e-4)
    # As data: another posterior of the same structure must compile nothing.
    leaves, tree = jax.tree.flatten(posterior)
    assert leaves
    assert jax.tree.unflatten(tree, leaves).image_shape() == posterior.image_shape()


@pytest.mark.parametrize("name", ["mlp-2-one-pixel", "toy-2500", "toy-15000", "banana-2"])
def test_log_z_by_draws_of_the_prior(name):
    """Z is the mean likelihood over the prior, which needs no answer at all."""
    reference = posteriors.get(name)
    z = np.random.default_rng(3).normal(size=(400_000, reference.dimension)).astype(np.float32)
    log_prior = stats.norm.logpdf(z.astype(np.float64)).sum(axis=1)
    weights = np.exp(evaluate(reference.posterior, z) - log_prior - reference.log_z)
    error = weights.std() / np.sqrt(len(weights))
    assert error < 0.1
    assert abs(weights.mean() - 1.0) < 4 * error


def test_linear_gaussian_64_is_the_one_of_the_issue():
    """Six keys of the first release were 7.6 nats off on this very posterior."""
    model = LinearGaussian.random(64, noise=0.1, seed=3)
    reference = posteriors.get("linear-gaussian-64")
    same = jax.tree.map(np.array_equal, model.posterior, reference.posterior)
    assert all(jax.tree.leaves(same))
    marginal = model.a @ model.a.T + model.noise**2 * np.eye(64)
    exact = stats.multivariate_normal(model.b, marginal).logpdf(model.y)
    assert reference.log_z == pytest.approx(exact, abs=1e-6)


def test_half_space_has_the_answer_of_its_report():
    reference = posteriors.get("half-space-2")
    assert reference.log_z == pytest.approx(-2.62, abs=0.005)
    np.testing.assert_allclose(reference.mean, [-0.41, 0.5], atol=0.01)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(jaxgen.InputError, match=r"expected one of linear-gaussian-2, .*; got 'x'"):
        posteriors.get("x")


def test_there_are_enough():
    assert len(posteriors.names()) >= 25
    assert len(set(posteriors.names())) == len(posteriors.names())
