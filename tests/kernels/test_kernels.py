"""Every kernel through one protocol, against exact answers and against BlackJAX."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import InputError, kernels
from jaxgen.core.pytree import pytree
from jaxgen.kernels import KernelParams, StepContext
from jaxgen.target.path import AnnealedPath, likelihood_path
from tests.toys import LinearGaussian, skewed_moments, skewed_posterior

# A step size for each at which it accepts a fair share on the skewed target below.
EXACT = [
    (kernels.MALA(), 0.4),
    (kernels.Barker(), 0.9),
    (kernels.HMC(4), 0.4),
    (kernels.HMC(4, jitter=True), 0.4),
    (kernels.NUTS(4), 0.4),
    (kernels.AdjustedMCLMC(3), 0.7),
    (kernels.RandomWalk(), 0.9),
    (kernels.PreconditionedCrankNicolson(), 0.7),
    (kernels.EllipticalSlice(), 1.0),
]
IDS = [type(k).__name__ + str(getattr(k, "jitter", "")) for k, _ in EXACT]


def run(kernel, path, beta, step_size, num_steps, num_chains, size, inverse_mass=None):
    """Positions `[C, S, D]` and infos of plain chains at one beta, from standard normals."""
    params = KernelParams(
        jnp.asarray(step_size), jnp.ones(size) if inverse_mass is None else inverse_mass
    )

    @jax.jit
    def chains(keys):
        def one(key):
            state = kernel.init(path, jax.random.normal(jax.random.fold_in(key, 0), (size,)))

            def step(state, t):
                context = StepContext(path, beta, params, t)
                state, info = kernel.step(jax.random.fold_in(key, t), state, context)
                return state, (state, info)

            return jax.lax.scan(step, state, jnp.arange(1, num_steps + 1))[1]

        return jax.vmap(one)(keys)

    return chains(jax.random.split(jax.random.key(3), num_chains))


@pytest.mark.parametrize(("kernel", "step_size"), EXACT, ids=IDS)
def test_a_skewed_target_keeps_its_moments(kernel, step_size):
    a, beta = 1.5, 0.7
    path = likelihood_path(skewed_posterior(2, a))
    kernel.check(path)
    states, info = run(kernel, path, jnp.float32(beta), step_size, 120, 400, 2)
    z = np.asarray(states.position)[:, 40:].astype(np.float64)
    assert 0.2 < np.mean(info.acceptance_rate) <= 1.0
    assert np.mean(info.is_divergent) < 1e-3
    for power in (1, 2, 3):
        per_chain = (z**power).mean(axis=(1, 2))
        error = per_chain.std(ddof=1) / np.sqrt(len(per_chain))
        want = skewed_moments(a, beta, power)
        assert abs(per_chain.mean() - want) < 4 * error, (power, per_chain.mean(), want, error)
        # The comparison must be sharp enough to see a wrong sign.
        assert error < 0.05 * max(abs(want), 0.5)


@pytest.mark.parametrize(("kernel", "step_size"), EXACT, ids=IDS)
def test_carried_halves_are_those_of_a_fresh_evaluation(kernel, step_size):
    path = likelihood_path(LinearGaussian(3).posterior)
    states, _ = run(kernel, path, jnp.float32(0.05), step_size / 3, 25, 16, 3)
    last = jax.tree.map(lambda x: x[:, -1], states)
    fresh = jax.vmap(lambda z: kernel.init(path, z))(last.position)
    for got, want in zip(last, fresh, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-3)


STOCK = [
    (kernels.MALA(), blackjax.mala, {}),
    (kernels.HMC(5), blackjax.hmc, {"inverse_mass_matrix": True, "num_integration_steps": 5}),
    (kernels.NUTS(4), blackjax.nuts, {"inverse_mass_matrix": True, "max_num_doublings": 4}),
    (kernels.Barker(), blackjax.barker_proposal, {}),
]


@pytest.mark.parametrize(
    ("kernel", "stock", "options"), STOCK, ids=lambda x: getattr(x, "name", "")
)
def test_at_a_fixed_beta_the_chain_is_blackjaxs(kernel, stock, options):
    problem = LinearGaussian(3)
    path = likelihood_path(problem.posterior)
    beta, step_size = jnp.float32(0.3), 0.25
    mass = jnp.array([1.0, 0.5, 2.0]) if options else jnp.ones(3)
    options = {k: mass if k == "inverse_mass_matrix" else v for k, v in options.items()}
    ours, info = run(kernel, path, beta, step_size, 40, 1, 3, mass)

    algorithm = stock(lambda z: path(z, beta), step_size, **options)
    key = jax.random.split(jax.random.key(3), 1)[0]
    state = algorithm.init(jax.random.normal(jax.random.fold_in(key, 0), (3,)))
    step = jax.jit(algorithm.step)
    positions, rates = [], []
    for t in range(1, 41):
        state, stock_info = step(jax.random.fold_in(key, t), state)
        positions.append(state.position)
        rates.append(stock_info.acceptance_rate)
    np.testing.assert_allclose(ours.position[0], np.stack(positions), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(info.acceptance_rate[0], rates, rtol=1e-2, atol=1e-3)


COUNTS = {"forward": 0, "backward": 0}


def _count(which):
    COUNTS["backward" if which else "forward"] += 1


# One callable for both directions, which are told apart by data: JAX now and then called the
# other of two callables, that of a program which an earlier test had compiled.


@jax.custom_vjp
def counted(x):
    jax.debug.callback(_count, jnp.int32(0))
    return x


def _forward(x):
    return counted(x), None


def _backward(_, g):
    jax.debug.callback(_count, jnp.int32(1))
    return (g,)


counted.defvjp(_forward, _backward)


@pytree
class CountedGenerator:
    """G(z) = z, counting every gradient that is really computed."""

    inner: object

    def __call__(self, z):
        return self.inner(counted(z))


@pytest.mark.parametrize(
    ("kernel", "per_step"),
    [
        (kernels.MALA(), 1),
        (kernels.Barker(), 1),
        (kernels.HMC(7), 7),
        (kernels.AdjustedMCLMC(3, jitter=False), 6),
        (kernels.RandomWalk(), 0),
        (kernels.PreconditionedCrankNicolson(), 0),
        (kernels.EllipticalSlice(), 0),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_a_step_costs_its_gradients_at_every_beta_and_no_more(kernel, per_step):
    posterior = LinearGaussian(2).posterior
    counting = jaxgen.Posterior(
        posterior.prior, CountedGenerator(posterior.generator), posterior.condition
    )
    betas = jaxgen.schedules.geometric(12)
    # One evaluation at the start, then the steps'; and the result says what happened.
    wanted = ((1 if kernel.uses_gradient else 0) + 12 * per_step, 0)
    # About once in a thousand runs on a busy machine JAX delivers one callback too many, or calls
    # that of another program. What the kernel itself did wrong would be there every time.
    for _ in range(3):
        jax.effects_barrier()
        COUNTS.update(forward=0, backward=0)
        result = jaxgen.ais(jax.random.key(0), counting, kernel, betas, num_chains=1, step_size=0.1)
        jax.effects_barrier()
        used = COUNTS["backward"] if kernel.uses_gradient else COUNTS["forward"]
        found = (COUNTS["backward"], int(result.num_gradients[0]) - used)
        if found == wanted:
            break
        jax.clear_caches()  # compiled again, its callbacks are registered anew
    assert found == wanted


@pytree
class Cliff:
    """log likelihood that is NaN beyond z = 1."""

    def __call__(self, image):
        z = image.ravel()[0]
        return jnp.where(z > 1.0, jnp.nan, z)


@pytest.mark.parametrize(("kernel", "step_size"), EXACT, ids=IDS)
def test_nan_proposals_are_refused_counted_and_never_returned(kernel, step_size):
    from tests.toys import RowImage

    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard(2), RowImage(), jaxgen.target.conditions.Term(Cliff())
    )
    path = likelihood_path(posterior)
    states, info = run(kernel, path, jnp.float32(1.0), step_size, 60, 40, 2)
    inside = np.asarray(states.position)[:, 0, 0] <= 1.0
    z = np.asarray(states.position)[inside]
    assert np.all(np.isfinite(z))
    assert np.all(z[..., 0] <= 1.0)
    assert np.all(np.isfinite(np.asarray(states.tilt)[inside]))
    if not isinstance(kernel, kernels.EllipticalSlice | kernels.NUTS):
        assert np.sum(np.asarray(info.is_divergent)[inside]) > 0


def test_gaussian_kernels_refuse_a_base_that_is_not():
    problem = LinearGaussian(2).posterior
    held = jaxgen.Posterior(
        problem.prior, problem.generator, problem.condition + problem.condition.untempered()
    )
    for kernel in (kernels.PreconditionedCrankNicolson(), kernels.EllipticalSlice()):
        kernel.check(likelihood_path(problem))
        with pytest.raises(InputError, match=r"path\.base: expected a Gaussian prior"):
            kernel.check(likelihood_path(held))


def test_score_priors_are_refused_by_kernels_that_accept_or_reject():
    prior = jaxgen.ScorePrior(jnp.negative, jaxgen.Gaussian.standard(2))
    posterior = jaxgen.Posterior(prior, *_rest(LinearGaussian(2).posterior))
    for kernel, _ in EXACT:
        with pytest.raises(InputError, match="Use MALAApprox or ascent"):
            kernel.check(likelihood_path(posterior))
    kernels.MALAApprox.langevin(0.1).check(likelihood_path(posterior))


def _rest(posterior):
    return posterior.generator, posterior.condition


def test_clipped_stays_inside_and_says_so():
    path = likelihood_path(skewed_posterior(2))
    kernel = kernels.Clipped(kernels.MALA(), -0.5, jnp.array([0.5, 0.2]))
    states, _ = run(kernel, path, jnp.float32(1.0), 0.3, 30, 8, 2)
    z = np.asarray(states.position)
    assert z.min() >= -0.5
    assert z[..., 1].max() <= 0.2 + 1e-6
    assert kernel.exactness == "clipped"
    assert kernel.target_acceptance == kernels.MALA.target_acceptance
    with pytest.raises(InputError, match="low < high"):
        kernels.Clipped(kernels.MALA(), 1.0, 0.0).check(path)


def test_untempered_terms_are_at_full_strength_at_every_beta():
    problem = LinearGaussian(2).posterior
    held = jaxgen.Posterior(problem.prior, problem.generator, problem.condition.untempered())
    path = likelihood_path(held)
    z = jnp.array([0.3, -0.2])
    np.testing.assert_allclose(path(z, 0.0), problem(z), rtol=1e-5)
    np.testing.assert_allclose(path(z, 1.0), problem(z), rtol=1e-5)
    assert isinstance(path, AnnealedPath)
    assert not path.base_is_cheap
