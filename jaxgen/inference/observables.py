"""What is looked at of draws to judge whether chains agree: latents, the log density, images."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.printing import prints_short
from jaxgen.core.types import PRNGKey
from jaxgen.target.evaluation import evaluate
from jaxgen.target.posterior import Posterior

__all__ = ["Observables", "latents", "observe"]

# Pixels beyond so many are looked at through random projections alone.
_MOST_PIXELS = 4096
_PROJECTIONS = 32
# Draws whose images are in memory together.
_AT_ONCE = 1024


@prints_short
class Observables(NamedTuple):
    """What chains are compared by: float64 arrays `[C, S, K]` of C chains with S draws each.

    Attributes:
      latent: coordinates of the latent.
      log_density: log p(z) + log p(condition | G(z)), K = 1.
      image: pixels that vary, and random projections of all pixels.
    """

    latent: np.ndarray
    log_density: np.ndarray
    image: np.ndarray


def latents(draws: Any) -> np.ndarray:
    """Return the coordinates `[C, S, D]` of draws.

    Args:
      draws: positions with leaves `[C, S, ...]`, or a dictionary that holds them as "position".

    Raises:
      InputError: where there are no positions.
    """
    positions = _positions(draws)
    chains, count = jax.tree.leaves(positions)[0].shape[:2]
    leaves = [np.asarray(x).reshape(chains, count, -1) for x in jax.tree.leaves(positions)]
    return np.concatenate(leaves, -1)


def observe(key: PRNGKey, draws: Any, posterior: Posterior, *, batch: int = 64) -> Observables:
    """Evaluate what chains are compared by, at every draw.

    Args:
      key: for random projections of images.
      draws: as in `latents`; with "image" `[C, S, ...]` where images were kept.
      posterior: what they are draws of.
      batch: draws whose images are made at a time, where none were kept.

    Raises:
      InputError: where there are no positions.
    """
    positions = _positions(draws)
    latent = latents(draws)
    chains, count = latent.shape[:2]
    flat = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), positions)
    stored = draws.get("image") if isinstance(draws, dict) else None
    if stored is not None:
        stored = np.asarray(stored).reshape(chains * count, -1)
    density, looks = [], []
    for start in range(0, chains * count, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        some = jax.tree.map(lambda x, part=part: jnp.asarray(x[part]), flat)
        found = evaluate(posterior, some, batch=batch, images=stored is None)
        density.append(found.log_density)
        images = found.images if stored is None else stored[part]
        looks.append(_looks(key, np.asarray(images).reshape(len(found.log_density), -1)))
    image = np.concatenate(looks)
    varies = image.std(0) > 1e-3
    if not np.any(varies):
        varies[:1] = True
    return Observables(
        latent,
        np.concatenate(density).reshape(chains, count, 1),
        image[:, varies].reshape(chains, count, -1),
    )


def _positions(draws: Any) -> Any:
    positions = draws.get("position") if isinstance(draws, dict) else draws
    if positions is None or not jax.tree.leaves(positions):
        raise expected("result", "one with positions kept", "none", "Use collect=jaxgen.images")
    return positions


def _looks(key: PRNGKey, images: np.ndarray) -> np.ndarray:
    """Return what is compared of images `[N, pixels]`: pixels and random projections."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    pixels = images.astype(np.float64)
    projected = pixels @ rng.normal(size=(pixels.shape[1], _PROJECTIONS))
    return projected if pixels.shape[1] > _MOST_PIXELS else np.concatenate([pixels, projected], 1)
