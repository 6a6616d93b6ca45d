"""Other samplers, as `reference_set.py` runs them: one function each, all keys in one batch.

Every function takes (reference, keys, budget) and returns an `Answer` for each key; `budget`
is a number of gradients for each of the 64 chains.

  blackjax-smc         `adaptive_tempered_smc`, HMC(10), target ESS 0.5, systematic resampling
  blackjax-persistent  `adaptive_persistent_sampling`, the same moves, target ESS 3 (its default)
  tfp                  `sample_annealed_importance_chain`, HMC(10), its own schedule; of four step
                       sizes the one with the largest mean log weight
  numpyro              HMC(10) at the posterior from prior draws; half of the budget is warm-up

BlackJAX ships no step size for these: between two temperatures the step is raised or lowered
towards an acceptance rate of 0.8, and the inverse mass is the variance of the particles, as
its `inner_kernel_tuning` does it. The number of moves at each temperature is what the budget
pays for, after a pilot run has told how many temperatures there will be. BlackJAX states no
error of log Z; for TFP it is that of the mean of independent weights, to first order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["PEERS", "Answer"]

CHAINS, LEAPFROG, TARGET_RATE = 64, 10, 0.8
MOST_TEMPERATURES = 200
STEPS = (0.25, 0.5, 1.0, 2.0)  # times d^(-1/4) times the mean posterior deviation: for TFP alone


class Answer(NamedTuple):
    """What a sampler says: draws `[N, d]` with weights `[N]`; NaN where it does not say."""

    log_z: float
    error: float
    gradients: float
    draws: np.ndarray
    weights: np.ndarray
    notes: tuple[str, ...] = ()
    verdict: str = ""


def _starts(posterior: Any, key: Any) -> Any:
    return jax.vmap(posterior.prior.sample)(jax.random.split(key, CHAINS))


def _moves() -> tuple[Any, Any]:
    """BlackJAX's HMC, `moves` times in a row (data, so that the budget compiles nothing)."""
    import blackjax

    hmc = blackjax.hmc.build_kernel()

    def step(key: Any, state: Any, density: Any, step_size: Any, mass: Any, moves: Any) -> Any:
        def body(i: Any, carry: Any) -> Any:
            state, rate = carry
            state, info = hmc(jax.random.fold_in(key, i), state, density, step_size, mass, LEAPFROG)
            return state, rate + info.acceptance_rate / moves

        return jax.lax.fori_loop(0, moves, body, (state, jnp.zeros(())))

    return step, blackjax.hmc.init


def _parameters(step_size: Any, mass: Any, moves: Any) -> dict[str, Any]:
    """Return a leading axis of one: shared by all particles."""
    return {"step_size": step_size[None], "mass": mass[None], "moves": moves[None]}


def _adapted(step_size: Any, rate: Any) -> Any:
    return step_size * jnp.exp(jnp.clip(rate - TARGET_RATE, -0.5, 0.5))


def _first_step(dimension: int) -> Any:
    return jnp.float32(0.5 * dimension**-0.25)


@functools.partial(jax.jit, static_argnames="dimension")
def _tempered(posterior: Any, keys: Any, moves: Any, dimension: int) -> Any:
    import blackjax
    from blackjax.smc import resampling

    step, init = _moves()
    smc = blackjax.adaptive_tempered_smc.build_kernel(
        posterior.log_prior, posterior.log_likelihood, step, init, resampling.systematic, 0.5
    )

    def one(key: Any) -> Any:
        first, key = jax.random.split(key)
        state = blackjax.adaptive_tempered_smc.init(_starts(posterior, first))
        state = state._replace(tempering_param=jnp.zeros(()))
        begin = (state, jnp.zeros(()), _first_step(dimension), jnp.ones(dimension), 0)

        def body(carry: Any) -> Any:
            state, log_z, size, mass, t = carry
            at = _parameters(size, mass, moves)
            state, info = smc(jax.random.fold_in(key, t), state, 1, at)
            mean = state.weights @ state.particles
            mass = state.weights @ (state.particles - mean[None]) ** 2 + 1e-8
            size = _adapted(size, jnp.mean(info.update_info))
            return state, log_z + info.log_likelihood_increment, size, mass, t + 1

        def more(carry: Any) -> Any:
            return (carry[0].tempering_param < 1) & (carry[-1] < MOST_TEMPERATURES)

        state, log_z, _, _, t = jax.lax.while_loop(more, body, begin)
        return state.particles, state.weights, log_z, t, state.tempering_param

    return jax.vmap(one)(keys)


@functools.partial(jax.jit, static_argnames="dimension")
def _persistent(posterior: Any, keys: Any, moves: Any, dimension: int) -> Any:
    from blackjax.smc import adaptive_persistent_sampling as persistent
    from blackjax.smc import resampling

    step, init = _moves()
    kernel = persistent.build_kernel(
        posterior.log_prior, posterior.log_likelihood, step, init, resampling.systematic, 3.0
    )

    def one(key: Any) -> Any:
        first, key = jax.random.split(key)
        state = persistent.init(
            _starts(posterior, first), posterior.log_likelihood, MOST_TEMPERATURES
        )
        begin = (state, _first_step(dimension), jnp.ones(dimension))

        def body(carry: Any) -> Any:
            state, size, mass = carry
            at = _parameters(size, mass, moves)
            state, info = kernel(jax.random.fold_in(key, state.iteration), state, 1, at)
            mass = jnp.var(state.particles, axis=0) + 1e-8
            return state, _adapted(size, jnp.mean(info.update_info)), mass

        def more(carry: Any) -> Any:
            state = carry[0]
            return (state.tempering_param < 1) & (state.iteration < MOST_TEMPERATURES)

        state, *_ = jax.lax.while_loop(more, body, begin)
        used = jnp.arange(MOST_TEMPERATURES + 1)[:, None] <= state.iteration
        weights = jnp.where(used, state.persistent_weights, 0.0).reshape(-1)
        particles = state.persistent_particles.reshape(-1, dimension)
        beta = state.tempering_param
        return particles, weights / weights.sum(), state.log_Z, state.iteration, beta

    return jax.vmap(one)(keys)


def _blackjax(program: Any, reference: Any, keys: Any, budget: float) -> list[Answer]:
    posterior, dimension = reference.posterior, reference.dimension
    # A temperature costs a gradient to start with and LEAPFROG for each move.
    pilot = program(posterior, keys[:2], jnp.int32(1), dimension)
    temperatures = float(np.mean(pilot[3]))
    moves = max(1, round((budget / temperatures - 1) / LEAPFROG))
    out = pilot if moves == 1 and len(keys) <= 2 else None
    if out is None:
        out = program(posterior, keys, jnp.int32(moves), dimension)
    particles, weights, log_z, count, beta = (np.asarray(x, np.float64) for x in out)
    answers = []
    for i in range(len(keys)):
        note = f"beta is {beta[i]:.2g} after {MOST_TEMPERATURES} temperatures"
        answers.append(
            Answer(
                log_z=float(log_z[i]),
                error=float("nan"),
                gradients=float(count[i] * (1 + moves * LEAPFROG)),
                draws=particles[i],
                weights=weights[i],
                notes=(note,) if beta[i] < 1 else (),
            )
        )
    return answers


@functools.partial(jax.jit, static_argnames="steps")
def _annealed(posterior: Any, keys: Any, step_size: Any, steps: int) -> Any:
    import tensorflow_probability.substrates.jax as tfp

    def one(key: Any) -> Any:
        first, second = jax.random.split(key)
        out = tfp.mcmc.sample_annealed_importance_chain(
            num_steps=steps,
            proposal_log_prob_fn=jax.vmap(posterior.log_prior),
            target_log_prob_fn=jax.vmap(posterior),
            current_state=_starts(posterior, first),
            make_kernel_fn=lambda density: tfp.mcmc.HamiltonianMonteCarlo(
                density, step_size, LEAPFROG
            ),
            seed=second,
        )
        return out[0], out[1]

    return jax.vmap(one)(keys)


def tfp(reference: Any, keys: Any, budget: float) -> list[Answer]:
    """Annealed importance sampling of TensorFlow Probability."""
    steps = max(2, round(budget / LEAPFROG))
    scale = float(np.sqrt(reference.variance.mean())) * reference.dimension**-0.25
    found = []
    for factor in STEPS:
        size = jnp.float32(factor * scale)
        log_weights = np.asarray(_annealed(reference.posterior, keys[:2], size, steps)[1])
        found.append(np.mean(np.nan_to_num(log_weights, nan=-np.inf)))
    size = jnp.float32(STEPS[int(np.argmax(found))] * scale)
    z, log_weights = (
        np.asarray(x, np.float64) for x in _annealed(reference.posterior, keys, size, steps)
    )
    answers = []
    for draws, log_weight in zip(z, log_weights, strict=True):
        log_weight = np.nan_to_num(log_weight, nan=-np.inf)
        top = log_weight.max()
        weights = np.exp(log_weight - top)
        error = weights.std(ddof=1) / weights.mean() / np.sqrt(CHAINS)
        log_z = top + np.log(weights.mean())
        answers.append(
            Answer(float(log_z), float(error), steps * LEAPFROG, draws, weights / weights.sum())
        )
    return answers


@functools.partial(jax.jit, static_argnames="steps")
def _numpyro(posterior: Any, keys: Any, steps: int) -> Any:
    from numpyro.infer.hmc import hmc

    init, move = hmc(lambda x: -posterior(x), algo="HMC")
    warmup = steps // 2

    def one(key: Any, z: Any) -> Any:
        state = init(
            z,
            num_warmup=warmup,
            step_size=0.1,
            num_steps=LEAPFROG,
            trajectory_length=None,
            rng_key=key,
        )
        state = jax.lax.fori_loop(0, warmup, lambda _, s: move(s), state)

        def keep(state: Any, _: Any) -> Any:
            state = move(state)
            return state, state.z

        return jax.lax.scan(keep, state, None, steps - warmup)[1]

    def all_chains(key: Any) -> Any:
        first, second = jax.random.split(key)
        return jax.vmap(one)(jax.random.split(second, CHAINS), _starts(posterior, first))

    return jax.vmap(all_chains)(keys)


def numpyro(reference: Any, keys: Any, budget: float) -> list[Answer]:
    """NumPyro's HMC, which gives no log Z."""
    steps = max(4, round(budget / LEAPFROG))
    nan = float("nan")
    found = np.asarray(_numpyro(reference.posterior, keys, steps), np.float64)
    count = found.shape[1] * found.shape[2]
    weights = np.full(count, 1 / count)
    return [
        Answer(nan, nan, steps * LEAPFROG, z.reshape(-1, reference.dimension), weights)
        for z in found
    ]


PEERS: dict[str, Callable[[Any, Any, float], list[Answer]]] = {
    "blackjax-smc": functools.partial(_blackjax, _tempered),
    "blackjax-persistent": functools.partial(_blackjax, _persistent),
    "tfp": tfp,
    "numpyro": numpyro,
}
