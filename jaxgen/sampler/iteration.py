"""One iteration of a chunk: a temperature while annealing, then kernel steps, then a draw.

On several devices an iteration is a program of one of them, which holds the rows of its own
chains (`jaxgen.sampler.shares`). Everything else in the state is the same on every device, since
all devices compute it from the same gathered numbers. An iteration gathers

- at a temperature, every chain's tilt (and base, where temperatures are adaptive);
- at a step, every chain's acceptance rate, while annealing or where a step rule learns from it;
- after a step, where more steps may follow until the chains have mixed, the positions;
- where the inverse mass is learned, the positions or gradients that it is learned from;
- where chains are resampled, the chains.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.kernels.base import ChainState, KernelParams, StepContext, StepInfo
from jaxgen.sampler.ensemble import learn_mass, log_evidence, resample_if_low, typed, when
from jaxgen.sampler.options import ChunkOptions, Sampler
from jaxgen.sampler.shares import Shares
from jaxgen.sampler.state import BLANK, ChunkSpec, Phase, SamplerState, TemperatureInfo, step_index
from jaxgen.target.path import AnnealedPath
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.resampling import effective_sample_size, whole_log_weight
from jaxgen.tempering.step_size import AdaptationState, StepRule

__all__ = ["ChunkContext", "move", "run_iteration", "skip_iteration"]

# Chains have mixed where their positions correlate by at most this with those before the steps.
_MIXED = 0.5


class ChunkContext(NamedTuple):
    """The data and options that all iterations of a chunk share.

    Attributes:
      sampler, spec, options: as `advance` takes them.
      path: the path that chains move on: the sampler's own, or the bridge to it.
      shares: how chains are shared out over the devices.
    """

    sampler: Sampler
    path: AnnealedPath
    spec: ChunkSpec
    options: ChunkOptions
    shares: Shares


def run_iteration(
    state: SamplerState, context: ChunkContext
) -> tuple[SamplerState, TemperatureInfo, ArrayTree]:
    """Run one iteration.

    Returns:
      The state; the row of the history (blank unless this is a temperature); the draw (zeros
      unless the phase is `Phase.DRAW`).
    """
    spec, rule, shares = context.spec, context.sampler.rule, context.shares
    state, row = jax.lax.cond(
        spec.phase == Phase.ANNEAL,
        lambda s: _next_temperature(s, context),
        lambda s: (s, BLANK),
        state,
    )
    before = shares.count_own(state.num_divergent)
    state, rate = _steps(state, context)
    row = row._replace(
        step_size=rule.size(state.adaptation, step_index(state)).mean(),
        acceptance_rate=rate,
        # Of this device's chains: a chunk adds them up at its end.
        num_divergent=shares.count_own(state.num_divergent) - before,
    )
    nothing = _no_draw(state, context)
    draw = jax.lax.cond(
        spec.phase == Phase.DRAW, lambda s: _draw(s, context), lambda _: nothing, state
    )
    return state, typed(row, BLANK), draw


def skip_iteration(
    state: SamplerState, context: ChunkContext
) -> tuple[SamplerState, TemperatureInfo, ArrayTree]:
    """Return the unchanged state, a blank row and an empty draw: the chunk has ended."""
    return state, BLANK, _no_draw(state, context)


def _next_temperature(
    state: SamplerState, context: ChunkContext
) -> tuple[SamplerState, TemperatureInfo]:
    """Choose the next beta, weigh the chains for it, and resample them where the ESS is low."""
    schedule, spec, shares, chains = (
        context.sampler.schedule,
        context.spec,
        context.shares,
        state.chains,
    )
    if isinstance(schedule, Adaptive):
        tilt, base = shares.gather((chains.tilt, chains.base))
        whole = whole_log_weight(state.log_weight, state.log_z)
        log_density = base + state.beta * tilt
        beta = schedule.next_beta(state.beta, whole, tilt, log_density)
    else:
        tilt = shares.gather(chains.tilt)
        beta = schedule[state.temperature + 1]
    weighted = state._replace(
        log_weight=state.log_weight + (beta - state.beta) * tilt,
        beta=beta,
        temperature=state.temperature + 1,
    )
    state = typed(weighted, state)
    ess = effective_sample_size(whole_log_weight(state.log_weight, state.log_z))
    log_z = log_evidence(state).log_z
    resampled = jnp.array(False)
    if context.options.precondition != "none":

        def learned(state: SamplerState) -> SamplerState:
            return learn_mass(state, context.options.precondition, context.sampler.path, shares)

        state = when(spec.learn_mass, learned, state)
    if context.options.resample is not None:
        state, resampled = resample_if_low(
            state, context.sampler.rule, context.options.resample, spec, shares
        )
    row = BLANK._replace(
        active=jnp.array(True),
        beta=beta,
        ess=ess,
        log_z=log_z,
        resampled=resampled,
        stage=spec.stage,
    )
    return state, typed(row, BLANK)


def _steps(state: SamplerState, context: ChunkContext) -> tuple[SamplerState, Array]:
    """Move every chain by the kernel steps of an iteration, until chains have mixed if so asked.

    Returns:
      The state, and the mean acceptance rate.
    """
    spec, first = context.spec, state.chains.position

    def body(carry: tuple[SamplerState, Array, Array, Array]) -> Any:
        state, taken, _, accepted = carry
        state, rates = _step(state, context)
        taken = taken + 1
        # Only where a further step is possible do devices need each other's positions.
        left = jax.lax.cond(
            (taken >= spec.steps_per_iteration) & (taken < spec.most_steps),
            lambda now: _correlation(*context.shares.gather((first, now))),
            lambda _: jnp.zeros((), jnp.float32),
            state.chains.position,
        )
        return state, taken, left, accepted + rates.mean().astype(accepted.dtype)

    def unmixed(carry: tuple[SamplerState, Array, Array, Array]) -> Array:
        _, taken, left, _ = carry
        more = (taken < spec.most_steps) & (left > _MIXED)
        return (taken < spec.steps_per_iteration) | more

    nothing = jnp.zeros((), jnp.float32)
    start = (state, jnp.zeros((), jnp.int32), nothing, jnp.zeros(()))
    state, taken, _, accepted = jax.lax.while_loop(unmixed, body, start)
    return state, accepted / taken


def _correlation(first: ArrayTree, now: ArrayTree) -> Array:
    """Return the correlation of the chains' positions with their earlier ones.

        sum_cd (x_cd - mean_d) (y_cd - mean_d) / sqrt(sum_cd (x_cd - mean_d)^2 sum_cd (...)^2)

    It falls as chains move, and stays high where they move slowly or cannot change between modes.
    Where all chains are at one place it is not a number, which counts as mixed.
    """
    # The barrier keeps the order of the sums, and so their bits, the same on any devices.
    x, y = jax.lax.optimization_barrier(
        tuple(jax.vmap(lambda z: ravel_pytree(z)[0])(tree) for tree in (first, now))
    )
    x, y = x - x.mean(0, keepdims=True), y - y.mean(0, keepdims=True)
    found = jnp.sum(x * y) / jnp.sqrt(jnp.sum(x * x) * jnp.sum(y * y))
    return found.astype(jnp.float32)


def _step(state: SamplerState, context: ChunkContext) -> tuple[SamplerState, Array]:
    """Move every chain one kernel step, and let the rule learn from it.

    Returns:
      The state, and the acceptance rates `[C]`: zeros where they are not needed.
    """
    rule, phase = context.sampler.rule, context.spec.phase
    state, rates = move(state, context)
    # The history needs the mean rate of every temperature. In other phases, and with a rule that
    # does not learn, devices need no rates from each other.
    wanted = [learner == "update" or _learns(rule, learner) for learner in _LEARNERS]
    whole = context.shares.gather_if(jnp.asarray(wanted)[phase], rates)

    def learn(learner: str, old: AdaptationState, rates: Array) -> AdaptationState:
        learned = getattr(rule, learner)(old, rates, context.sampler.kernel.target_acceptance)
        return typed(learned, old)

    phases = [functools.partial(learn, learner) for learner in _LEARNERS]
    adaptation = jax.lax.switch(phase, phases, state.adaptation, whole)
    return state._replace(adaptation=adaptation), whole


def move(state: SamplerState, context: ChunkContext) -> tuple[SamplerState, Array]:
    """Move this device's chains one kernel step; also return their acceptance rates `[own]`."""
    kernel, rule, shares = context.sampler.kernel, context.sampler.rule, context.shares
    t = state.t + 1
    sizes = jnp.broadcast_to(rule.size(state.adaptation, step_index(state)), (shares.num_chains,))

    def one(chain_key: PRNGKey, chain: ChainState, step_size: Array) -> tuple[ChainState, StepInfo]:
        key = jax.random.fold_in(chain_key, t)
        params = KernelParams(step_size, state.inverse_mass)
        return kernel.step(key, chain, StepContext(context.path, state.beta, params, t))

    chains, info = shares.map(one, (state.chain_keys, state.chains, shares.take(sizes)))
    moved = state._replace(
        chains=chains,
        t=t,
        accepted=state.accepted + info.acceptance_rate,
        num_steps=state.num_steps + 1,
        num_gradients=state.num_gradients + info.num_gradients,
        num_divergent=state.num_divergent + info.is_divergent.astype(jnp.int32),
    )
    return typed(moved, state), info.acceptance_rate


# The method by which a rule learns from a step of each phase.
_LEARNERS = ("update", "warm", "after_freeze")


def _learns(rule: StepRule, learner: str) -> bool:
    """Return whether a rule has a method of its own to learn by."""
    if getattr(type(rule), learner) is not getattr(StepRule, learner):
        return True
    return learner == "warm" and _learns(rule, "update")


def _draw(state: SamplerState, context: ChunkContext) -> ArrayTree:
    """Return what is collected of every chain: leaves `[C, ...]`, or this device's rows."""
    shares = context.shares
    own = shares.map(
        lambda chain: context.options.collect(context.sampler.path, chain), (state.chains,)
    )
    return own if shares.is_spread else shares.gather(own)


def _no_draw(state: SamplerState, context: ChunkContext) -> ArrayTree:
    shapes = jax.eval_shape(lambda s: _draw(s, context), state)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
