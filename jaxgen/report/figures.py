"""What is measured of one posterior: mixing in three spaces, traces, typicality."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.printing import prints_short
from jaxgen.diagnostics import effective_sizes, split_rhat
from jaxgen.report.reading import Entry, Run

__all__ = ["Figures", "autocorrelation", "measure", "ranks"]

_PROJECTIONS = 32
# Numbers up to which pixels are looked at one by one, beside the projections.
_MOST = 20_000_000


@prints_short
class Figures(NamedTuple):
    """Measured on the draws of one posterior.

    Attributes:
      density: `[C, S]` log densities of the draws, up to a constant.
      density_name: which density: "log density", or "log prior" where the run's condition
        cannot be had from its folder.
      latent, output: `[C, S]` the coordinate, and the projection of what the generator makes,
        of worst R-hat; None where it was not kept.
      output_name: "image", or "output" of what is none.
      rhat, ess_bulk, ess_tail: by space ("latent", "log density", "image"), the worst.
      radius: `[C, S]` |z| / sqrt(d).
      dimension: d.
      not_finite: how many numbers are NaN or infinite.
    """

    density: np.ndarray
    density_name: str
    latent: np.ndarray
    output: np.ndarray | None
    output_name: str
    rhat: dict[str, float]
    ess_bulk: dict[str, float]
    ess_tail: dict[str, float]
    radius: np.ndarray
    dimension: int
    not_finite: int


def measure(entry: Entry, run: Run | None = None) -> Figures:
    """Measure one posterior; with its run, class densities are evaluated as well."""
    chains, draws = entry.size
    position = entry.position.reshape(chains, draws, -1).astype(np.float64)
    bad = int(np.sum(~np.isfinite(position)))
    position = np.nan_to_num(position, nan=0.0, posinf=0.0, neginf=0.0)
    output = entry.output
    if output is not None:
        bad += int(np.sum(~np.isfinite(output)))
        output = np.nan_to_num(output, nan=0.0, posinf=1.0, neginf=0.0)
    dimension = position.shape[-1]
    # Beyond what float32 holds nothing is told apart, and squares of squares stay finite.
    position = np.clip(position, -1e60, 1e60)
    square = np.sum(position**2, axis=-1)
    density, name = _density(entry, output, square, run)
    spaces = {"latent": position, name: density[..., None]}
    shown = "output" if entry.image is None else "image"
    if output is not None:
        spaces[shown] = _looks(output.reshape(chains, draws, -1))
    rhat, bulk, tail, worst = {}, {}, {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of quantities that do not vary
        for space, values in spaces.items():
            each = np.atleast_1d(split_rhat(values))
            sizes = effective_sizes(values)
            rhat[space] = _worst(np.nanmax, each)
            bulk[space] = _worst(np.nanmin, sizes.bulk)
            tail[space] = _worst(np.nanmin, sizes.tail)
            known = np.isfinite(each)
            worst[space] = int(np.nanargmax(np.where(known, each, -1))) if known.any() else 0
    return Figures(
        density=density,
        density_name=name,
        latent=position[..., worst["latent"]],
        output=spaces[shown][..., worst[shown]] if shown in spaces else None,
        output_name=shown,
        rhat=rhat,
        ess_bulk=bulk,
        ess_tail=tail,
        radius=np.sqrt(square / dimension),
        dimension=dimension,
        not_finite=bad,
    )


def autocorrelation(draws: np.ndarray, most: int = 60) -> np.ndarray:
    """Autocorrelation of `[C, S]` draws at lags 0, 1, ..., each chain about its own mean.

    Chains whose mean is elsewhere would otherwise look like slow ones; R-hat tells of those.
    """
    x = draws - draws.mean(axis=1, keepdims=True)
    count = x.shape[1]
    variance = np.mean(x**2)
    if count < 2 or not variance > 0:
        return np.ones(1)
    lags = range(min(most, count // 2) + 1)
    return np.array([np.sum(x[:, : count - k] * x[:, k:]) / (x.size * variance) for k in lags])


def ranks(draws: np.ndarray, bins: int = 10) -> np.ndarray:
    """`[C, bins]`: how the ranks of each chain's draws among all spread; uniform if mixed."""
    order = np.argsort(np.argsort(draws.ravel(), kind="stable"), kind="stable")
    place = np.minimum(order * bins // draws.size, bins - 1).reshape(draws.shape)
    return np.stack([np.bincount(row, minlength=bins) for row in place])


def _density(
    entry: Entry, image: np.ndarray | None, square: np.ndarray, run: Run | None
) -> tuple[np.ndarray, str]:
    stored = entry.extra.get("log_density")
    if stored is not None:
        return np.nan_to_num(stored.astype(np.float64)), "log density"
    prior = -0.5 * square
    likelihood = None
    if image is not None and entry.image is not None:
        likelihood = _pixels(entry, image, run)
        if likelihood is None:
            likelihood = _classes(entry, image, run)
    if likelihood is None:
        return prior, "log prior"
    return prior + likelihood, "log density"


def _pixels(entry: Entry, image: np.ndarray, run: Run | None) -> np.ndarray | None:
    """Gaussian log likelihoods of observed pixels, where truth, mask and noise are known."""
    if run is None or run.summary.get("command") != "inpaint":
        return None
    arguments = run.summary.get("arguments")
    if not isinstance(arguments, dict) or arguments.get("label") is not None:
        return None
    noise: Any = arguments.get("noise")
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 < noise < math.inf:
        return None
    if not {"truth", "mask"} <= set(entry.extra):
        return None
    residual = (image - entry.extra["truth"]) * (entry.extra["mask"][..., None] > 0)
    return -0.5 * np.sum(residual.astype(np.float64) ** 2, axis=(2, 3, 4)) / noise**2


def _classes(entry: Entry, image: np.ndarray, run: Run | None) -> np.ndarray | None:
    """Class log probabilities, by a classifier that ships with jaxgen; never a named file."""
    name = re.fullmatch(r"class_(\d{1,6})", entry.name)
    if run is None or name is None or run.summary.get("command") not in ("sample", "demo"):
        return None
    models: Any = run.summary.get("models")
    used = [m for m in models if isinstance(m, dict)] if isinstance(models, list) else []
    used = [m for m in used if m.get("kind") == "classifier"]
    if len(used) != 1:
        return None
    return _class_densities(used[0], int(name[1]), image)


def _class_densities(model: dict[str, Any], label: int, image: np.ndarray) -> np.ndarray | None:
    import jax

    from jaxgen.core.errors import InputError
    from jaxgen.models.registry import available, describe, load

    name = model.get("name")
    if not isinstance(name, str) or name not in available():
        return None
    try:
        info = describe(name)
        same = info.metadata["sha256"] == model.get("sha256")
        if not same or info.input_shape != image.shape[2:] or label >= info.output_shape[-1]:
            return None
        network = load(name)
    except InputError:  # its weights are not installed
        return None
    flat = image.reshape(-1, *image.shape[2:]).astype(np.float32)
    batch = min(256, len(flat))
    evaluate = jax.jit(lambda net, x: jax.nn.log_softmax(jax.vmap(net)(x), axis=-1)[:, label])
    parts = []
    for start in range(0, len(flat), batch):
        index = np.minimum(np.arange(start, start + batch), len(flat) - 1)
        parts.append(np.asarray(evaluate(network, flat[index]))[: len(flat) - start])
    return np.concatenate(parts).astype(np.float64).reshape(image.shape[:2])


def _looks(images: np.ndarray) -> np.ndarray:
    """Return what is compared of images `[C, S, K]`: random projections, and pixels that vary."""
    flat = images.reshape(-1, images.shape[-1])
    varies = flat.std(axis=0) > 1e-3
    if not varies.any():
        return images[..., :1].astype(np.float64)
    pixels = flat[:, varies].astype(np.float64)
    directions = np.random.default_rng(0).normal(size=(pixels.shape[1], _PROJECTIONS))
    looks = (pixels - pixels.mean(axis=0)) @ directions
    if pixels.size <= _MOST:
        looks = np.concatenate([looks, pixels], axis=1)
    return looks.reshape(*images.shape[:2], -1)


def _worst(choose: Any, values: np.ndarray) -> float:
    return float(choose(values)) if np.any(np.isfinite(values)) else math.nan
