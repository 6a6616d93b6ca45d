"""How far draws may be trusted: R-hat and ESS in latents, density and image; symmetries.

R-hat and the effective sample sizes are those of Vehtari, Gelman, Simpson, Carpenter &
Buerkner (Bayesian Analysis 2021): chains are split in two, draws replaced by normal scores
of their ranks, and R-hat is the larger of the bulk's and the folded draws'. With many short
chains R-hat^2 - 1 is about 1 / ESS of one chain, so it is large until each chain has gone
round the posterior by itself.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.deprecation import former_field
from jaxgen.core.printing import card, card_html, prints_short
from jaxgen.core.types import Generator, Prior, PRNGKey
from jaxgen.inference.observables import observe
from jaxgen.metrics.chains import ESS, effective_sizes, split_rhat
from jaxgen.sampler.notes import separation_note
from jaxgen.sampler.results import SampleResult
from jaxgen.target.posterior import Posterior
from jaxgen.target.priors import Sphere

__all__ = [
    "ESS",
    "Diagnosis",
    "Symmetries",
    "diagnose",
    "effective_sizes",
    "split_rhat",
    "symmetries",
]

# Up to the first all is well; above the second the chains have not met.
_GOOD, _POOR = 1.05, 1.2
# Standard deviations of the islands' log Z: below the first they agree, above the second they
# have found different things.
ISLANDS_AGREE, ISLANDS_APART = 1.0, 2.0
# Standard errors of log Z: up to the first it is known well, above the second hardly at all.
_SURE, _UNSURE = 0.5, 1.0


@prints_short
class Symmetries(NamedTuple):
    """Changes of the latent that do not change the image, as tested on prior draws.

    Attributes:
      radius: G(c z) = G(z) for c > 0: only the direction of z matters.
      sign: G(-z) = G(z).
      ignored: indices of flattened coordinates that no output depends on.
      notes: what to do about it, in sentences.
    """

    radius: bool
    sign: bool
    ignored: np.ndarray
    notes: tuple[str, ...]


class Diagnosis(NamedTuple):
    """How far the draws of a run may be trusted.

    Attributes:
      verdict: "mixed", "islands agree", "uncertain", "separate", "slow", "stuck", "islands
        disagree" or "unknown", and then why, in one line.
      rhat: the worst R-hat of each space: "latent", "log density", "image".
      ess_bulk, ess_tail: the smallest effective sample size of each space.
      num_draws: C x S.
      num_lineages: number of first states that have descendants.
      radius: mean of |z| / sqrt(d) over draws; about 1 for a standard normal in high
        dimensions.
      symmetries: of the generator.
      notes: all that should be known, the run's own notes among it.
    """

    verdict: str
    rhat: dict[str, float]
    ess_bulk: dict[str, float]
    ess_tail: dict[str, float]
    num_draws: int
    num_lineages: int
    radius: float
    symmetries: Symmetries
    notes: tuple[str, ...]

    num_ancestors = former_field("num_ancestors", "num_lineages")

    def __repr__(self) -> str:
        return card(*_printed(self))

    def _repr_html_(self) -> str:
        return card_html(*_printed(self))


def _printed(found: Diagnosis) -> tuple[str, list[tuple[str, str]], tuple[str, ...]]:
    """Return what a `Diagnosis` prints: the verdict, a row for each space, notes."""
    rows = [
        (
            space,
            f"R-hat {found.rhat[space]:.3f}, ESS {found.ess_bulk[space]:,.0f} (tails "
            f"{found.ess_tail[space]:,.0f}) of {found.num_draws:,} draws",
        )
        for space in found.rhat
    ]
    rows.append(("families", f"{found.num_lineages} independent first states"))
    rows.append(("|z| / sqrt(d)", f"{found.radius:.3f}"))
    return f"Diagnosis: {found.verdict}", rows, found.notes


def symmetries(
    key: PRNGKey, generator: Generator, prior: Prior, *, num_draws: int = 4, tolerance: float = 1e-3
) -> Symmetries:
    """Test on prior draws whether a generator ignores |z|, the sign of z, or coordinates.

    A change counts as none where the image moves by less than `tolerance` of what another
    draw moves it by.
    """
    like = prior.latent(prior.sample(key))
    if not hasattr(like, "shape"):  # a tree of several latents has no one length
        return Symmetries(False, False, np.zeros(0, int), ())
    images, scaled, flipped, pulled = _probe(key, generator, prior, num_draws)
    apart = float(jnp.sqrt(jnp.mean((images - jnp.roll(images, 1, axis=0)) ** 2)))

    def same(other: object) -> bool:
        worst = float(jnp.sqrt(jnp.max(jnp.mean((images - other) ** 2, axis=-1))))
        return apart > 0 and worst < tolerance * apart

    radius, sign = all(same(s) for s in scaled), same(flipped)
    strength = np.max(np.abs(np.asarray(pulled)), axis=0)
    ignored = np.flatnonzero(strength < 1e-6 * max(strength.max(), 1e-30))
    notes = []
    if radius and not isinstance(prior, Sphere):
        notes.append(
            "the generator ignores |z|: the posterior is flat along it; "
            "use the prior Sphere, which has no such direction"
        )
    if sign:
        notes.append("G(-z) = G(z): every mode has a mirror image, and chains need not find both")
    if len(ignored):
        notes.append(
            f"the generator ignores {len(ignored)} of {strength.size} coordinates: "
            "there the posterior is the prior"
        )
    return Symmetries(radius, sign, ignored, tuple(notes))


def diagnose(
    result: SampleResult, posterior: Posterior, *, key: PRNGKey | None = None, batch: int = 64
) -> Diagnosis:
    """Judge a run of `jaxgen.sample` on a posterior.

    Args:
      result: with positions kept (`collect=positions` or `images`).
      posterior: what it was a run on.
      key: for random projections and the test of symmetries.
      batch: draws whose images are made at a time, where the result has none.

    Raises:
      InputError: where the result keeps no positions.
    """
    key = jax.random.key(0) if key is None else key
    looked_at = observe(key, result.draws, posterior, batch=batch)
    chains, count = looked_at.latent.shape[:2]
    spaces = {
        "latent": looked_at.latent,
        "log density": looked_at.log_density,
        "image": looked_at.image,
    }
    rhat = {name: _worst(np.nanmax, split_rhat(x)) for name, x in spaces.items()}
    sizes = {name: effective_sizes(x) for name, x in spaces.items()}
    bulk = {name: _worst(np.nanmin, s.bulk) for name, s in sizes.items()}
    tail = {name: _worst(np.nanmin, s.tail) for name, s in sizes.items()}
    radius = float(np.mean(np.sqrt(np.mean(looked_at.latent.astype(np.float64) ** 2, axis=-1))))
    seen = symmetries(key, posterior.generator, posterior.prior)
    notes = [*result.notes, *seen.notes]
    if not 0.8 < radius < 1.25 and looked_at.latent.shape[-1] >= 10:
        notes.append(f"|z| is {radius:.2f} sqrt(d), where the prior has about 1")
    return Diagnosis(
        verdict=_verdict(rhat, bulk, result, chains),
        rhat=rhat,
        ess_bulk=bulk,
        ess_tail=tail,
        num_draws=chains * count,
        num_lineages=result.num_lineages,
        radius=radius,
        symmetries=seen,
        notes=tuple(notes),
    )


def annealed_well(
    island_log_z: ArrayLike,
    standard_error: float,
    families: float,
    chains: int,
    most_error: float = _SURE,
) -> bool:
    """Return whether independent islands of chains have found the same posterior.

    Short chains after annealing need not each go round the whole posterior: their first
    states are draws of it where the islands, which never met, agree on log Z, and where these
    states descend from many independent ones.

    Args:
      island_log_z: `[I]` of the annealing.
      standard_error: of log Z.
      families: independent first states that the chains descend from.
      chains: C.
      most_error: the largest standard error that counts as well.
    """
    found = np.asarray(island_log_z, np.float64)
    if found.size < 2 or not np.all(np.isfinite(found)):
        return False
    agree = float(np.std(found, ddof=1)) <= ISLANDS_AGREE
    return agree and standard_error <= most_error and families >= max(8, chains // 5)


def _verdict(rhat: dict[str, float], bulk: dict[str, float], result: Any, chains: int) -> str:
    families = result.num_lineages
    islands = getattr(result, "island_log_z", ())
    well = annealed_well(islands, result.log_z_standard_error, families, chains)
    spread = float(np.std(islands, ddof=1)) if len(islands) > 1 else 0.0
    if spread > ISLANDS_APART:
        return (
            f"islands disagree: their log Z differ by {spread:.1f} (standard deviation); some "
            "chains have missed what others found. Use more chains (num_chains) or "
            "a larger num_mcmc_steps"
        )
    if all(np.isnan(value) for value in rhat.values()):
        if well:
            return _agreeing(islands, families, "too few draws per chain for R-hat")
        return "unknown: too few draws for each chain to tell; keep at least 4"
    where = max(rhat, key=lambda name: np.nan_to_num(rhat[name]))
    worst = rhat[where]
    size = bulk[where]
    if worst <= _GOOD:
        return f"mixed: R-hat at most {worst:.3f} ({where}), ESS {size:.0f}"
    if well and not separation_note(result.draws, result.history):
        return _agreeing(islands, families, f"R-hat {worst:.2f} ({where})")
    if well:
        return (
            f"separate: R-hat {worst:.2f} ({where}): chains stay where annealing has put them. "
            "Islands agree on what they found, but parts of the posterior that few chains reached "
            "may be missing; compare with a larger num_chains"
        )
    if worst <= _POOR:
        return (
            f"slow: R-hat {worst:.2f} ({where}), ESS {size:.0f}; draw more (num_steps), or use "
            "longer trajectories"
        )
    error = result.log_z_standard_error
    if annealed_well(islands, error, families, chains, _UNSURE) and not separation_note(
        result.draws, result.history
    ):
        return (
            f"uncertain: log Z is uncertain by {error:.2f}, and draws of one chain resemble each "
            f"other (R-hat {worst:.2f} ({where})): count chains, not draws. Use more chains "
            "(num_chains) or temperatures, or draw more (num_steps)"
        )
    few = f" from {families} first states" if families < chains // 4 else ""
    return (
        f"stuck: R-hat {worst:.2f} ({where}): {chains} chains{few} have not met; intervals from "
        "them are not calibrated. Use longer trajectories, a larger num_mcmc_steps or "
        "preconditioning"
    )


def _agreeing(islands: Any, families: int, why: str) -> str:
    return (
        f"islands agree: {len(islands)} groups of chains that never met found the same log Z, and "
        f"{families} independent first states; draws of one chain resemble each other ({why}), "
        "so count chains, not draws, or raise num_steps"
    )


@functools.partial(jax.jit, static_argnames=("count",))
def _probe(key: PRNGKey, generator: Generator, prior: Prior, count: int) -> tuple[Any, ...]:
    """Images of prior draws; of scaled and of mirrored ones; cotangents pulled back."""
    z = jax.vmap(lambda k: prior.latent(prior.sample(k)))(jax.random.split(key, count))

    def flat(z: Any) -> Any:
        return generator(z).reshape(-1)

    def pull(z: ArrayLike, key: PRNGKey) -> Any:
        image, back = jax.vjp(flat, z)
        return back(jax.random.normal(key, image.shape, image.dtype))[0].reshape(-1)

    many = jax.vmap(flat)
    keys = jax.random.split(jax.random.fold_in(key, count), count)
    return many(z), (many(0.6 * z), many(1.5 * z)), many(-z), jax.vmap(pull)(z, keys)


def _worst(choose: Any, values: np.ndarray) -> float:
    return float(choose(values)) if np.any(np.isfinite(values)) else float("nan")
