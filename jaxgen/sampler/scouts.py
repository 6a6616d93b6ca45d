"""Scouts: chains that come down to the posterior without annealing, to find modes.

Annealing loses a mode that holds little of the mass at high temperatures, however much it holds
at the end. Chains that start from the prior, half of them from a wider one, and move at the last
beta at once fall into whatever mode is near: they find modes by their reach, not by their mass.
They carry no weights, so that they serve for one thing only: `fit_proposal` puts them and the
pilot's chains into places, and where these are separate modes, the final stage starts from a
mixture over all of them, whose weights are exact.

    steps:   4, again while some have come near and most have not yet, at most twice

On a posterior so sharp that no scout comes near in 4 steps the annealing stands alone.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxgen.core.pytree import replace
from jaxgen.core.types import Array, PRNGKey
from jaxgen.kernels.base import ChainState, Kernel
from jaxgen.sampler.ensemble import learn_mass
from jaxgen.sampler.options import ONE_BATCH, Layout
from jaxgen.sampler.sharding import over_chains
from jaxgen.sampler.shares import share_out
from jaxgen.sampler.state import PilotResult, SamplerState, new_phase
from jaxgen.target.path import AnnealedPath
from jaxgen.target.places import find_places
from jaxgen.target.proposal import fit_mixture, no_mixture
from jaxgen.tempering.resampling import whole_log_weight

__all__ = ["MOST_ROUNDS", "STEPS", "fit_proposal", "send_scouts", "worth_a_round"]

# Kernel steps of a round, and rounds at most.
STEPS, MOST_ROUNDS = 4, 2
# Folded into a chain's key for its scout, beyond all counts of steps.
_SCOUT = np.uint32(0xFFFFFFFD)
# A wide draw z + c (z' - z'') has twice the prior's standard deviation.
_WIDEN = math.sqrt(1.5)
# Log density below the best chain of the pilot: what a draw of a Gaussian mode of D dimensions
# has at most (D / 2 and three deviations), and so much more.
_SLACK = 15.0
# Scouts are near if they lie within D and so much more of it; so many must be.
_NEAR, _SOME = 50.0, 0.05
# Nats by which a mixture must be nearer than the path's own start where chains lie apart. Halves
# of images under a generator are 80 to 100: annealed from the prior, all chains descend from four.
_TOO_FAR = 50.0


@functools.partial(jax.jit, static_argnames=("precondition", "layout"))
def send_scouts(
    state: SamplerState,
    path: AnnealedPath,
    kernel: Kernel,
    *,
    precondition: str,
    layout: Layout = ONE_BATCH,
) -> SamplerState:
    """Keep what the pilot's chains have found, and put scouts in their place, at the last beta.

    A wide draw outside of the prior's support is replaced by one of the prior's own.
    """
    if precondition != "none":
        state = learn_mass(state, precondition, path, share_out(state.log_weight.shape[0]))
    chains = state.chains
    pilot = PilotResult(
        chains.position,
        chains.log_density(state.beta),
        chains.gradient(state.beta),
        whole_log_weight(state.log_weight, state.log_z),
        state.adaptation,
        state.num_divergent,
    )

    def one(key: PRNGKey, index: Array) -> tuple[ChainState, Array]:
        keys = jax.random.split(jax.random.fold_in(key, _SCOUT), 3)
        plain, left, right = (path.start.sample(k) for k in keys)
        wide = jax.tree.map(
            lambda z, a, b: (z + _WIDEN * (a - b)).astype(z.dtype), plain, left, right
        )
        usable = (index % 2 == 1) & jnp.isfinite(path.start.log_prob(wide))
        position = jax.tree.map(lambda z, w: jnp.where(usable, w, z), plain, wide)
        return kernel.init(path, position), jnp.zeros(())

    indices = jnp.arange(state.log_weight.shape[0])
    scouts, _ = over_chains(one, (state.chain_keys, indices), *layout)
    sent = state._replace(
        chains=scouts,
        pilot=pilot,
        inverse_mass=state.learned_mass,
        num_gradients=state.num_gradients + 1,
    )
    return jax.tree.map(lambda new, old: new.astype(old.dtype), new_phase(sent), state)


@jax.jit
def worth_a_round(state: SamplerState) -> Array:
    """Return whether some scouts have come near, and most have not arrived yet."""
    log_density = state.chains.log_density(state.beta)
    near = log_density > _best(state) - _dimension(state) - _NEAR
    return (jnp.mean(near) >= _SOME) & (jnp.mean(log_density > _least(state)) < 0.5)


@jax.jit
def fit_proposal(state: SamplerState, path: AnnealedPath) -> SamplerState:
    """Fit the mixture to what pilot and scouts have found, and choose where the final stage starts.

    Where there are several modes, the mixture is over all points, with as much weight in every
    mode; otherwise over the pilot's chains alone, with their weights. The final stage starts
    from it where the chains are more probable under it than under the path's own start: the
    Kullback-Leibler divergence from the target is smaller by as much. Where chains lie too far
    apart for one mode, and in no few places that could be told, it starts from the path's own
    start: a mixture of what was found would leave out, without a sign of it, what was not. From a
    start that is too far away it would find no more than the pilot has.

    Args:
      state: of scouts that have gone.
      path: the target's.
    """
    found = _pilot(state)
    position, gradient = (
        jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *pair)
        for pair in (
            (found.position, state.chains.position),
            (found.gradient, state.chains.gradient(state.beta)),
        )
    )
    log_density = jnp.concatenate([found.log_density, state.chains.log_density(state.beta)])
    count = found.log_weight.shape[0]
    pilots = jnp.arange(2 * count) < count
    usable = jnp.isfinite(log_density) & (pilots | (log_density > _least(state)))
    places = find_places(position, log_density, gradient, usable, state.learned_mass)
    nowhere = jnp.full(count, -jnp.inf, found.log_weight.dtype)
    log_weight = jnp.where(
        places.are_modes, places.log_weight, jnp.concatenate([found.log_weight, nowhere])
    )
    same = places.same | ~places.are_modes
    pull = jnp.where(places.are_modes, places.pull, 0.0)
    mixture, near = fit_mixture(position, log_weight, state.learned_mass, same, pull)
    log_prob = jax.vmap(path.start.log_prob)(position)
    own = jnp.sum(jax.nn.softmax(log_weight) * jnp.where(jnp.isfinite(log_weight), log_prob, 0.0))
    size = mixture.mean.shape[0]
    fits = jnp.isfinite(near) & jnp.all(jnp.isfinite(mixture.colour))
    gain = near - own
    covers = ~mixture.is_scattered & ~places.are_unclear
    nearer = fits & (gain > 1.0 + 0.05 * size) & (covers | (gain > _TOO_FAR))
    nothing = replace(no_mixture(mixture.like, 2 * count), apart=mixture.apart)
    mixture = jax.tree.map(lambda m, n: jnp.where(nearer, m, n), mixture, nothing)
    # The step is the one that the pilot has learned.
    return state._replace(
        mixture=mixture,
        on_bridge=nearer,
        inverse_mass=state.learned_mass,
        adaptation=found.adaptation,
        num_divergent=found.num_divergent,
    )


def _pilot(state: SamplerState) -> PilotResult:
    assert state.pilot is not None, "a run without a pilot has no scouts"
    return state.pilot


def _dimension(state: SamplerState) -> int:
    return ravel_pytree(jax.tree.map(lambda x: x[0], state.chains.position))[0].size


def _best(state: SamplerState) -> Array:
    log_density = _pilot(state).log_density
    return jnp.max(jnp.where(jnp.isfinite(log_density), log_density, -jnp.inf))


def _least(state: SamplerState) -> Array:
    """Return the log density above which a scout has arrived."""
    size = _dimension(state)
    return _best(state) - size / 2 - 3 * math.sqrt(size / 2) - _SLACK
