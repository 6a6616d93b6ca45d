"""One iteration of a chunk: a temperature while annealing, then kernel steps, then a draw.

On several devices an iteration is a program of one of them, which holds the rows of its own
chains (`jaxgen.sampler.shares`). Everything else in the state is the same on every device, since
all devices compute it from the same gathered numbers. An iteration gathers

- at a temperature, every chain's tilt (and base, where temperatures are adaptive);
- at a step, every chain's acceptance rate, while annealing or where a step rule learns from it;
- where the inverse mass is learned, the positions or gradients that it is learned from;
- where chains are resampled, the chains.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

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

    def step(_: int, carry: tuple[SamplerState, Array]) -> tuple[SamplerState, Array]:
        state, rates = _step(carry[0], context)
        return state, carry[1] + rates.mean().astype(carry[1].dtype)

    first = (state, jnp.zeros(()))
    state, accepted = jax.lax.fori_loop(0, spec.steps_per_iteration, step, first)
    row = row._replace(
        step_size=rule.size(state.adaptation, step_index(state)).mean(),
        acceptance_rate=accepted / spec.steps_per_iteration,
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
