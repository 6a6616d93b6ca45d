"""One slot of a chunk: a temperature while annealing, then kernel steps, then a draw.

On several devices a slot is a program of one of them, which holds the rows of its own chains
(`jaxgen.sampler.shares`). All else in the state is the same on every device, since all compute
it from the same gathered numbers. A slot gathers

- at a temperature, every chain's tilt (and base, where temperatures are adaptive);
- at a step, every chain's acceptance rate, while annealing or where a step rule learns from it;
- where the inverse mass is learned, the positions or gradients that it is learned from;
- where chains are resampled, the chains.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.types import Array, PRNGKey
from jaxgen.kernels.base import ChainState, Kernel, Tuning
from jaxgen.sampler.ensemble import learn_mass, log_evidence, resample_if_low, typed, when
from jaxgen.sampler.shares import Shares
from jaxgen.sampler.state import ANNEAL, BLANK, DRAW, Order, RunState, TemperatureInfo, clock
from jaxgen.target.path import AnnealedPath
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.resampling import effective_sample_size, whole_log_weight
from jaxgen.tempering.step_size import StepRule

__all__ = ["Common", "move", "run_slot", "unused_slot"]


class Common(NamedTuple):
    """What all slots of a chunk have in common.

    Attributes:
      path, kernel, rule, schedule, order, resample, precondition, collect: as `advance` takes
        them.
      way: the path that chains move on, or the bridge to it.
      shares: how chains are shared out over the devices.
    """

    path: AnnealedPath
    way: AnnealedPath
    kernel: Kernel
    rule: StepRule
    schedule: Array | Adaptive
    order: Order
    resample: str | None
    precondition: str
    collect: Any
    shares: Shares


def run_slot(state: RunState, common: Common) -> tuple[RunState, TemperatureInfo, Any]:
    """Run one slot; also returns its row of the history, and the draw, if it is one."""
    order, rule, shares = common.order, common.rule, common.shares
    state, row = jax.lax.cond(
        order.phase == ANNEAL,
        lambda s: _next_temperature(s, common),
        lambda s: (s, BLANK),
        state,
    )
    before = shares.count_own(state.num_divergent)

    def step(_: int, carry: tuple[RunState, Array]) -> tuple[RunState, Array]:
        state, rates = _step(carry[0], common)
        return state, carry[1] + rates.mean().astype(carry[1].dtype)

    first = (state, jnp.zeros(()))
    state, accepted = jax.lax.fori_loop(0, order.steps_per_slot, step, first)
    row = row._replace(
        step_size=rule.size(state.memory, clock(state)).mean(),
        acceptance_rate=accepted / order.steps_per_slot,
        # Of this device's chains: a chunk adds them up at its end.
        num_divergent=shares.count_own(state.num_divergent) - before,
    )
    nothing = _no_draw(state, common)
    draw = jax.lax.cond(order.phase == DRAW, lambda s: _draw(s, common), lambda _: nothing, state)
    return state, typed(row, BLANK), draw


def unused_slot(state: RunState, common: Common) -> tuple[RunState, TemperatureInfo, Any]:
    """Return what a slot does that is not used: nothing."""
    return state, BLANK, _no_draw(state, common)


def _next_temperature(state: RunState, common: Common) -> tuple[RunState, TemperatureInfo]:
    """Choose the next beta, weigh the chains for it, and resample them where it is time."""
    schedule, order, shares, chains = common.schedule, common.order, common.shares, state.chains
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
    if common.precondition != "none":

        def learned(state: RunState) -> RunState:
            return learn_mass(state, common.precondition, common.path, shares)

        state = when(order.learn_mass, learned, state)
    if common.resample is not None:
        state, resampled = resample_if_low(state, common.rule, common.resample, order, shares)
    row = BLANK._replace(
        active=jnp.array(True),
        beta=beta,
        ess=ess,
        log_z=log_z,
        resampled=resampled,
        stage=order.stage,
    )
    return state, typed(row, BLANK)


def _step(state: RunState, common: Common) -> tuple[RunState, Array]:
    """Move every chain one kernel step, and let the rule learn from it.

    Returns:
      The state, and the acceptance rates `[C]`: zeros where nobody asks for them.
    """
    rule, phase = common.rule, common.order.phase
    state, rates = move(state, common)
    # The history tells the mean rate of every temperature. In other phases, where the rule does
    # not learn, several devices need not hear of each other.
    wanted = [learner == "update" or _learns(rule, learner) for learner in _LEARNERS]
    whole = common.shares.gather_if(jnp.asarray(wanted)[phase], rates)

    def learn(learner: str, memory: Any, rates: Array) -> Any:
        learned = getattr(rule, learner)(memory, rates, common.kernel.target_acceptance)
        return typed(learned, memory)

    phases = [functools.partial(learn, learner) for learner in _LEARNERS]
    memory = jax.lax.switch(phase, phases, state.memory, whole)
    return state._replace(memory=memory), whole


def move(state: RunState, common: Common) -> tuple[RunState, Array]:
    """Move this device's chains one kernel step; also their acceptance rates `[own]`."""
    kernel, rule, shares = common.kernel, common.rule, common.shares
    t = state.t + 1
    sizes = jnp.broadcast_to(rule.size(state.memory, clock(state)), (shares.num_chains,))

    def one(chain_key: PRNGKey, chain: ChainState, step_size: Array) -> Any:
        key = jax.random.fold_in(chain_key, t)
        tuning = Tuning(step_size, state.inverse_mass)
        return kernel.step(key, chain, common.way, state.beta, tuning, t)

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
    """Whether a rule has a method of its own to learn by."""
    if getattr(type(rule), learner) is not getattr(StepRule, learner):
        return True
    return learner == "warm" and _learns(rule, "update")


def _draw(state: RunState, common: Common) -> Any:
    """What is collected of every chain: leaves `[C, ...]`, or this device's rows."""
    shares = common.shares
    own = shares.map(lambda chain: common.collect(common.path, chain), (state.chains,))
    return own if shares.is_spread else shares.gather(own)


def _no_draw(state: RunState, common: Common) -> Any:
    shapes = jax.eval_shape(lambda s: _draw(s, common), state)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
