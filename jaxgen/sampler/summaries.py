"""The table of a result, as `arviz.summary` has it: one row for each quantity.

    mean, sd, the narrowest interval of a probability, Monte Carlo errors, ESS, R-hat

Means, deviations and intervals use the chains' weights where they are not equal. ESS, R-hat and
Monte Carlo errors look at chains alone (`jaxgen.metrics.chains`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.table import Table
from jaxgen.core.types import ArrayTree

__all__ = ["mixing", "table_of", "z_names"]

# Numbers beyond which R-hat is not computed just to print a result.
_MOST = 8_000_000


def table_of(
    draws: ArrayTree,
    position: ArrayTree,
    weights: Any,
    observables: Mapping[str, Callable[[Any], Any]] | None = None,
    hdi_prob: float = 0.94,
) -> Table:
    """Return the table of draws.

    Args:
      draws: what was kept, leaves `[C, S, ...]`; positions, or a dict with "position".
      position: `[C, ...]` where the chains are now, in place of draws that were not kept.
      weights: `[C]`, normalised.
      observables: name -> function of one draw: of its image where images were kept, of its
        position otherwise.
      hdi_prob: of the interval.

    Raises:
      InputError: for a probability outside (0, 1), and observables that are no functions of
        a draw.
    """
    if not 0 < hdi_prob < 1:
        raise expected("hdi_prob", "a probability between 0 and 1", hdi_prob)
    weights = np.asarray(weights, np.float64)
    kept, image = _parts(draws, position, len(weights))
    names, values = z_names(kept)
    size = values.shape[:2]
    columns = [values]
    if isinstance(draws, Mapping):
        for name, leaf in draws.items():
            if name not in ("position", "image") and np.shape(leaf) == size:
                names.append(str(name))
                columns.append(np.asarray(leaf, np.float64)[..., None])
    if image is not None:
        names.append("image mean")
        columns.append(image.reshape(*size, -1).mean(-1, dtype=np.float64)[..., None])
    for name, function in (observables or {}).items():
        made = _observed(name, function, kept if image is None else image, size)
        width = made.shape[-1]
        names += [name] if width == 1 else [f"{name}[{k}]" for k in range(width)]
        columns.append(made)
    return Table(names, _columns(np.concatenate(columns, axis=-1), weights, hdi_prob))


def z_names(position: ArrayTree) -> tuple[list[str], np.ndarray]:
    """Return names `z[0]`, `z[1]`, ... (`z_NAME[0]` of several latents), and values `[C, S, D]`."""
    flat = jax.tree_util.tree_flatten_with_path(position)[0]
    names: list[str] = []
    values = []
    for path, leaf in flat:
        keys = [str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path]
        stem = "_".join(["z", *keys])
        leaf = np.asarray(leaf, np.float64)
        inner = leaf.shape[2:]
        places = [", ".join(map(str, at)) for at in np.ndindex(*inner)]
        names += [f"{stem}[{at}]" if at else stem for at in places]
        values.append(leaf.reshape(*leaf.shape[:2], -1))
    return names, np.concatenate(values, axis=-1)


def mixing(draws: ArrayTree, position: ArrayTree) -> str:
    """Return how chains mix in latents, in a few words; empty where that cannot be told."""
    from jaxgen.metrics.chains import effective_sizes, split_rhat

    kept, _ = _parts(draws, position, jax.tree.leaves(position)[0].shape[0])
    first = jax.tree.leaves(kept)[0]
    size = np.shape(first)[:2]
    total = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(kept))
    if size[0] < 2 or size[1] < 4 or total > _MOST:
        return ""
    values = z_names(kept)[1]
    rhat, bulk = split_rhat(values), effective_sizes(values).bulk
    if not np.isfinite(rhat).any():
        return ""
    return (
        f"R-hat {np.nanmax(rhat):.2f} at worst, ESS {np.nanmin(bulk):,.0f} of "
        f"{size[0] * size[1]:,} draws (latents)"
    )


def _parts(draws: ArrayTree, position: ArrayTree, chains: int) -> tuple[Any, np.ndarray | None]:
    """Return positions `[C, S, ...]`, the last ones where none were kept, and images or None."""
    image = None
    kept = draws
    if isinstance(draws, Mapping) and "position" in draws:
        kept, image = draws["position"], draws.get("image")
    leaves, last = jax.tree.leaves(kept), jax.tree.leaves(position)
    good = jax.tree.structure(kept) == jax.tree.structure(position) and all(
        np.ndim(x) >= 2 and np.shape(x)[0] == chains and np.shape(x)[2:] == np.shape(y)[1:]
        for x, y in zip(leaves, last, strict=True)
    )
    if not good:
        return jax.tree.map(lambda x: np.asarray(x)[:, None], position), None
    return kept, None if image is None else np.asarray(image)


def _observed(name: str, function: Any, kept: ArrayTree, size: tuple[int, ...]) -> np.ndarray:
    if not callable(function):
        raise expected(f"observables: {name}", "a function of a draw", type(function).__name__)
    made = jax.vmap(jax.vmap(function))(jax.tree.map(jnp.asarray, kept))
    if not hasattr(made, "shape"):
        raise expected(f"observables: {name}", "one array for a draw", type(made).__name__)
    return np.asarray(made, np.float64).reshape(*size, -1)


def _columns(x: np.ndarray, weights: np.ndarray, hdi_prob: float) -> dict[str, np.ndarray]:
    from jaxgen.metrics.chains import effective_sizes, mean_sizes, split_rhat

    chains, draws, _ = x.shape
    flat = x.reshape(chains * draws, -1)
    each = np.repeat(weights / draws, draws)
    mean = each @ flat
    square = (flat - mean) ** 2
    # As the sample variance has it: unbiased for equal weights.
    sd = np.sqrt(each @ square / max(1 - np.sum(each**2), 1e-12))
    low, high = _narrowest(flat, each, hdi_prob)
    sizes, count = effective_sizes(x), mean_sizes(x)
    squares = (x - mean) ** 2
    second = squares.reshape(flat.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        mcse_mean = sd / np.sqrt(count)
        variance = each @ (second**2) - (each @ second) ** 2
        mcse_sd = np.sqrt(variance / mean_sizes(squares) / (each @ second)) / 2
    tail = f"{100 * (1 - hdi_prob) / 2:g}%", f"{100 * (1 + hdi_prob) / 2:g}%"
    return {
        "mean": mean,
        "sd": sd,
        f"hdi_{tail[0]}": low,
        f"hdi_{tail[1]}": high,
        "mcse_mean": mcse_mean,
        "mcse_sd": mcse_sd,
        "ess_bulk": sizes.bulk,
        "ess_tail": sizes.tail,
        "r_hat": split_rhat(x),
    }


def _narrowest(
    flat: np.ndarray, each: np.ndarray, probability: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the narrowest interval with this probability, of each column of `[N, K]`."""
    order = np.argsort(flat, axis=0, kind="stable")
    values = np.take_along_axis(flat, order, axis=0)
    low, high = [], []
    for column, index in zip(values.T, order.T, strict=True):
        mass = np.cumsum(each[index])
        before = np.concatenate([[0.0], mass[:-1]])
        # The first draw by which an interval that begins at k holds more than enough, as in
        # ArviZ.
        end = np.searchsorted(mass, before + probability + 1e-12, side="right")
        fits = end < len(column)
        starts = np.flatnonzero(fits)
        widths = column[end[fits]] - column[starts]
        best = int(np.argmin(widths)) if len(widths) else 0
        low.append(column[starts[best]] if len(widths) else column[0])
        high.append(column[end[fits][best]] if len(widths) else column[-1])
    return np.asarray(low), np.asarray(high)
