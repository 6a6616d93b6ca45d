"""Transitions between two phases of a run, and the check that a state belongs to a target."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxgen.core.types import Array, ArrayTree
from jaxgen.kernels.base import ChainState
from jaxgen.sampler.ensemble import resample_all, typed, when
from jaxgen.sampler.options import ONE_BATCH, Layout
from jaxgen.sampler.sharding import over_chains
from jaxgen.sampler.shares import Shares, share_out
from jaxgen.sampler.state import SamplerState, new_phase
from jaxgen.target.path import AnnealedPath
from jaxgen.target.proposal import bridged, unbridged_tilt
from jaxgen.tempering import mass_matrix
from jaxgen.tempering.resampling import whole_log_weight
from jaxgen.tempering.step_size import StepRule

__all__ = ["finish_annealing", "finish_warm_up", "stale"]


@functools.partial(jax.jit, static_argnames=("resample", "precondition", "layout"))
def finish_annealing(
    state: SamplerState,
    path: AnnealedPath,
    rule: StepRule,
    *,
    resample: str | None,
    precondition: str,
    layout: Layout = ONE_BATCH,
) -> SamplerState:
    """Join the islands, and let the rule start its warm-up.

    Chains that moved on the bridge return to the path; a last resampling over all islands makes
    the weights equal; the inverse mass that was learned last comes into use.
    """
    if state.mixture is not None:
        state = when(state.on_bridge, lambda s: _leave_bridge(s, path, layout), state)
    if precondition in ("dense", "diagonal"):
        whole = whole_log_weight(state.log_weight, state.log_z)
        learned = mass_matrix.ensemble(state.chains.position, whole, precondition)
        state = typed(state._replace(learned_mass=learned), state)
    state = state._replace(inverse_mass=state.learned_mass)
    if resample is not None:
        # Weights that are equal already were made so at this temperature, with its key.
        whole = whole_log_weight(state.log_weight, state.log_z)
        unequal = jnp.any(whole != whole[0])
        state = when(unequal, lambda s: resample_all(s, rule, resample, _shares(s)), state)
    return typed(new_phase(state._replace(adaptation=rule.start_warmup(state.adaptation))), state)


@jax.jit
def finish_warm_up(state: SamplerState, rule: StepRule) -> SamplerState:
    """Freeze the step rule, and begin to count acceptance rates anew."""
    return typed(new_phase(state._replace(adaptation=rule.freeze(state.adaptation))), state)


@functools.partial(jax.jit, static_argnames="layout")
def stale(state: SamplerState, path: AnnealedPath, *, layout: Layout = ONE_BATCH) -> Array:
    """Return whether the chains carry values of another target than this path: one forward pass.

    Carried values were recovered from sums, so they agree with fresh ones to rounding only.
    """
    moving = bridged(path, state.mixture, state.on_bridge)

    def densities(position: ArrayTree) -> tuple[Array, Array]:
        base = moving.base(position) if hasattr(path.start, "log_prob") else jnp.zeros(())
        return base, moving.tilt(position)

    fresh = over_chains(densities, (state.chains.position,), *layout)
    carried = (state.chains.base, state.chains.tilt)
    # Each was recovered from a sum of both, and is rounded as that sum is.
    size = jnp.nan_to_num(sum(jnp.abs(x) for x in carried), posinf=0.0)
    pairs = zip(fresh, carried, strict=True)
    same = [(jnp.abs(f - c) <= 0.05 + 1e-3 * size) | (f == c) | jnp.isnan(c) for f, c in pairs]
    return ~jnp.all(jnp.stack(same))


def _leave_bridge(state: SamplerState, path: AnnealedPath, layout: Layout) -> SamplerState:
    """Split the chains' log densities at beta = 1 into the path's own base and tilt."""

    def own(chain: ChainState) -> ChainState:
        base, grad_base = jax.value_and_grad(path.base)(chain.position)
        return chain._replace(
            base=base,
            grad_base=grad_base,
            tilt=unbridged_tilt(chain.tilt, chain.base, base),
            grad_tilt=unbridged_tilt(chain.grad_tilt, chain.grad_base, grad_base),
        )

    chains = over_chains(own, (state.chains,), *layout)
    return state._replace(chains=chains, on_bridge=jnp.zeros_like(state.on_bridge))


def _shares(state: SamplerState) -> Shares:
    """Return the shares between two chunks: every device has all chains."""
    return share_out(state.log_weight.shape[0])
