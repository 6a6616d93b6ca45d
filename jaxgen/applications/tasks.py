"""Co-generation: the rest of an image, or a sharper one, from what was seen of it.

`inpaint`, `super_resolve` and `reconstruct` compose a posterior, call `jaxgen.sample` and
sum its draws up: posterior mean, deviation, credible intervals, samples, and whether the
generator could have made what was seen at all. Fang & Schwing (NeurIPS 2019) is the
problem; `compat="cogen"` is their method, and everything else a better one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.errors import expected
from jaxgen.core.printing import card, card_html, number
from jaxgen.core.pytree import with_structure
from jaxgen.core.table import Table
from jaxgen.core.tracing import is_traced
from jaxgen.core.types import PRNGKey
from jaxgen.diagnostics.moments import Moments, add, pooled, quantiles, weighted_quantiles
from jaxgen.diagnostics.streaming import StreamedDraws, folding, histogram_quantiles
from jaxgen.inference.finished import amend
from jaxgen.inference.sample import images, sample
from jaxgen.kernels import HMC
from jaxgen.models import load
from jaxgen.models.registry import describe
from jaxgen.sampler.results import SampleResult
from jaxgen.target.conditions import (
    Condition,
    GaussianNoise,
    LearnedNoise,
    LowResolution,
    NoiseLevels,
    ObservedPixels,
    Operator,
)
from jaxgen.target.evaluation import evaluate
from jaxgen.target.path import tempered_prior_path
from jaxgen.target.posterior import Posterior
from jaxgen.target.priors import Gaussian
from jaxgen.tempering.betas import by_name
from jaxgen.tempering.step_size import CoGeneration

__all__ = [
    "COGEN_NOISE",
    "Reconstruction",
    "cogen_settings",
    "inpaint",
    "learned",
    "reconstruct",
    "summarise",
    "super_resolve",
    "unit_noise",
]

# The co-generation code's -sum (difference)^2 over pixels in [-1, 1], as a standard
# deviation of pixels in [0, 1].
COGEN_NOISE = 8.0**-0.5

# Where the residual exceeds the noise by so much, the generator cannot show what was seen.
_TOO_FAR = 1.5
# With a learned level: where it leaves half of the variance of what was seen unexplained.
_UNEXPLAINED = 0.7
_NOISE_LEVELS = np.geomspace(0.01, 0.64, 13)
# Residuals of neighbouring pixels that count as one: a patch of so many pixels.
_PATCH = 10.0

# Pixels constrain a GAN's latents jointly: the pilot needs no more than to find them, and the
# second annealing, which starts near, makes up for what a short one leaves out.
_SETTINGS: dict[str, Any] = {
    "num_chains": 64,
    "kernel": HMC(10, jitter=True),
    "moves": 1,
    "warmup": 10,
    "num_steps": 20,
    "thin": 1,
}


@with_structure("level", "notes")
class Reconstruction(NamedTuple):
    """What is known of an image after an observation; maps are `[H, W, channels]`.

    Attributes:
      mean: the posterior mean, the estimate of least expected squared error.
      deviation: standard deviation of each pixel over the draws.
      low, high: each pixel's credible interval.
      level: the interval's probability.
      samples: the last draw of every chain, `[C, H, W, channels]`, in falling order of
        weight, then of posterior density.
      sample_weights: `[C]`, theirs; equal where chains were resampled.
      noise: the noise level in use: the one given, or the learned one's posterior mean.
      residual: root mean square of what was seen minus what the draws show.
      misfit: residual / noise, about 1 where the generator can show what was seen (for
        learned noise: residual / deviation of what was seen).
      out_of_reach: whether `misfit` says that it cannot.
      notes: the run's notes, and one on the misfit where there is one.
      result: the run itself; its draws hold "position" and "image", or are `StreamedDraws`.
    """

    mean: np.ndarray
    deviation: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float
    samples: np.ndarray
    sample_weights: np.ndarray
    noise: float
    residual: float
    misfit: float
    out_of_reach: bool
    notes: tuple[str, ...]
    result: SampleResult

    def summary(self, *args: Any, **kwargs: Any) -> Table:
        """Return a table of the draws: see `SampleResult.summary`."""
        return self.result.summary(*args, **kwargs)

    def __repr__(self) -> str:
        return card(*_printed(self))

    def _repr_html_(self) -> str:
        return card_html(*_printed(self), pictures=_pictures(self))


def _printed(found: Reconstruction) -> tuple[str, list[tuple[str, str]], tuple[str, ...]]:
    """Return what a `Reconstruction` prints: title, rows and notes."""
    shape = list(np.shape(found.mean))
    title = f"Reconstruction: {shape} from {np.shape(found.samples)[0]} chains"
    if np.ndim(found.misfit):  # of several runs, by jax.vmap
        runs = list(np.shape(found.misfit))
        title = f"Reconstruction of {runs} runs: {shape} each"
    misfit = f"residual {number(found.residual, '.3f')}, misfit {number(found.misfit)}"
    if not is_traced(found.out_of_reach) and not np.ndim(found.out_of_reach):
        misfit += " (out of reach)" if bool(found.out_of_reach) else " (within reach)"
    rows = [("noise", number(found.noise, ".3g")), ("observation", misfit)]
    if not is_traced(found.deviation):
        spread = float(np.mean(found.deviation))
        wide = float(np.mean(np.asarray(found.high) - np.asarray(found.low)))
        rows.append(("deviation", f"{spread:.3f} on average"))
        rows.append(("interval", f"{100 * found.level:.0f}%, {wide:.3f} wide on average"))
    inner = repr(found.result).splitlines()[1:]
    rows += [
        (name, text.strip())
        for name, _, text in (line.strip().partition("  ") for line in inner)
        if text and not name.startswith("note:")
    ]
    return title, rows, found.notes


def _pictures(found: Reconstruction) -> list[tuple[str, np.ndarray]]:
    """Return the maps and samples of one reconstruction that can be looked at."""
    shape = np.shape(found.mean)
    if is_traced(found.mean) or len(shape) not in (2, 3) or (len(shape) == 3 and shape[-1] > 3):
        return []
    if len(shape) == 3 and shape[-1] == 2:
        return []

    def as_image(values: Any) -> np.ndarray:
        values = np.asarray(values)
        return values[..., None] if len(shape) == 2 else values

    level = f"{100 * found.level:.0f}% interval"
    deviation = as_image(found.deviation)
    maps = {
        "posterior mean": as_image(found.mean)[None],
        "deviation (white 0.5)": np.clip(2 * deviation, 0, 1)[None],
        f"lower end, {level}": as_image(found.low)[None],
        f"upper end, {level}": as_image(found.high)[None],
        "samples": as_image(found.samples),
    }
    return list(maps.items())


def inpaint(
    key: PRNGKey,
    generator: Any,
    image: ArrayLike,
    mask: ArrayLike,
    *,
    noise: float | str = 0.1,
    **more: Any,
) -> Reconstruction:
    """Complete an image: p(z) N(observed pixels; G(z), noise^2).

    Args:
      key: consumed.
      generator: a network (then give `prior`), or the name of a generator that is shipped.
      image: `[H, W, channels]` in [0, 1]; hidden pixels may hold anything finite.
      mask: 1 where observed, 0 where hidden, `[H, W]` or of the image's shape.
      noise: standard deviation of the observation, or "learn".
      more: see `reconstruct`.
    """
    image, mask = jnp.asarray(image, jnp.float32), jnp.asarray(mask, jnp.float32)
    full = mask[..., None] if mask.ndim == image.ndim - 1 else mask
    seen = jnp.where(full > 0, image, 0.0)  # what is hidden is not even handed over
    condition = ObservedPixels(seen, mask, unit_noise(noise))
    maps = {"view": seen, "mask": mask if mask.ndim == 2 else jnp.min(mask, axis=-1)}
    return _solve(key, generator, condition, noise=noise, task=("inpaint", maps), **more)


def super_resolve(
    key: PRNGKey,
    generator: Any,
    view: ArrayLike,
    factor: int,
    *,
    method: str = "average",
    noise: float | str = 0.05,
    **more: Any,
) -> Reconstruction:
    """Sharpen a view: p(z) N(view; A G(z), noise^2), A a reduction by `factor`.

    Args:
      key: consumed.
      generator: as in `inpaint`.
      view: `[H / factor, W / factor, channels]` in [0, 1].
      factor: how many pixels make one, each way.
      method: "average" (boxes) or "stride" (every factor-th pixel).
      noise: standard deviation of the view, or "learn".
      more: see `reconstruct`.
    """
    view = jnp.asarray(view, jnp.float32)
    condition = LowResolution(view, unit_noise(noise), factor, method)
    task = ("super_resolve", {"view": view})
    return _solve(key, generator, condition, noise=noise, task=task, **more)


def reconstruct(
    key: PRNGKey,
    generator: Any,
    observation: ArrayLike,
    operator: object,
    *,
    noise: float | str = 0.1,
    **more: Any,
) -> Reconstruction:
    """Return an image from a function of it: p(z) N(observation; A(G(z)), noise^2).

    Args:
      key: consumed.
      generator: a network, or the name of a generator that is shipped.
      observation: y, of the shape of A(image), real or complex as A(image) is. Of a complex one
        the noise is that of the real and of the imaginary part each.
      operator: A: one of `jaxgen.target.conditions.operators`, or any function of an image.
      noise: a standard deviation, or "learn": one of thirteen levels from 0.01 to 0.64 that
        are equally likely beforehand, integrated out (`NoiseLevels`); or "student-t": an
        inverse gamma prior worth two observations of level 0.1 (`LearnedNoise`).
      more: `prior`: a distribution over latents, needed where `generator` is no name;
        `also`: another condition on the image, as a class; `redundancy`: how many residuals
        count as one where the noise is learned (a patch of ten pixels' worth); `level`: of the
        credible intervals, 0.9; `compat`: "cogen" for the co-generation authors' settings in
        all but the condition (give them noise=COGEN_NOISE); `keep`: False sums the draws up
        as they come and keeps none (`jaxgen.diagnostics.streaming`), for many of them or large
        images; `truth`: the whole image, where it is known: no draw depends on it, and with
        `folder` the report shows the error beside it; and what `jaxgen.sample` takes.

    Returns:
      A `Reconstruction`.

    Raises:
      InputError: for arguments that cannot be used.
    """
    observation = jnp.asarray(observation)
    if not jnp.iscomplexobj(observation):
        observation = observation.astype(jnp.float32)
    condition = Operator(observation, unit_noise(noise), operator)
    return _solve(key, generator, condition, noise=noise, task=("reconstruct", {}), **more)


def learned(
    condition: GaussianNoise,
    noise: float | str,
    redundancy: float | None = None,
    image_shape: tuple[int, ...] | None = None,
) -> Any:
    """Return a condition whose noise is the number given, or integrated out by its name.

    Args:
      condition: what was seen, and the unit of its noise.
      noise: a number, which the condition has already, "learn" or "student-t".
      redundancy: how many residuals count as one; None for as many as lie in a patch of ten
        pixels, 1 at least.
      image_shape: of the image; None where it is that of the observation.
    """
    if noise in ("learn", "student-t") and redundancy is None:
        density = 1.0
        if image_shape is not None:
            density = _parts(condition.observed) * np.size(condition.observed)
            density = density / np.prod(image_shape)
        redundancy = max(1.0, _PATCH * float(density))
    count = jnp.asarray(redundancy or 1.0, jnp.float32)
    if noise == "learn":
        scales = jnp.asarray(_NOISE_LEVELS / 0.1, jnp.float32)
        return NoiseLevels(condition, scales, count)
    if noise == "student-t":
        one = jnp.float32(1.0)
        return LearnedNoise(condition, one, one, count)
    if isinstance(noise, str):
        raise expected("noise", "a number, 'learn' or 'student-t'", repr(noise))
    if redundancy is not None:
        raise expected("redundancy", "none for a given noise level", redundancy)
    return condition


def cogen_settings(num_chains: int = 10, name: str = "cogen-images") -> dict[str, Any]:
    """Return the co-generation authors' sampler, as `sample` takes it.

    Raw sigmoid betas with one HMC step of 20 leapfrogs at each, one step size for all
    chains times 1.02 or 0.98, no preconditioning, no resampling, no weights; the path
    tempers the prior away (`tempered_prior_path`). One step more at the end is the draw.
    """
    return {
        "kernel": HMC(20),
        "num_chains": num_chains,
        "betas": by_name(name),
        "moves": 1,
        "step_size": CoGeneration(),
        "resample": None,
        "precondition": False,
        "warmup": 0,
        "num_steps": 1,
        "thin": 1,
    }


def _solve(
    key: PRNGKey,
    generator: Any,
    condition: GaussianNoise,
    *,
    noise: float | str,
    task: tuple[str, dict[str, Any]],
    truth: ArrayLike | None = None,
    prior: Any = None,
    also: Any = None,
    redundancy: float | None = None,
    level: float = 0.9,
    compat: str | None = None,
    keep: bool = True,
    **settings: Any,
) -> Reconstruction:
    if not keep and settings.get("resample", "") is None:
        raise expected("keep", "True where chains keep weights (resample=None)", keep)
    if not 0 < level < 1:
        raise expected("level", "a probability between 0 and 1", level)
    if compat not in (None, "cogen"):
        raise expected("compat", "None or 'cogen'", repr(compat))
    if isinstance(generator, str):
        info = describe(generator)
        if info.kind != "generator":
            raise expected("generator", "a generator", f"{generator}, a {info.kind}")
        prior = Gaussian.standard(info.input_shape) if prior is None else prior
        generator = load(generator)
    if prior is None:
        hint = "As in prior=jaxgen.Gaussian.standard(64)"
        raise expected("prior", "a distribution over the generator's latents", "none", hint)
    shape = Posterior(prior, generator, condition).image_shape()
    if truth is not None and np.shape(truth) != tuple(shape):
        raise expected("truth", f"shape {list(shape)} like the image", list(np.shape(truth)))
    full = learned(condition, noise, redundancy, shape)
    posterior = Posterior(prior, generator, full if also is None else full + also)
    posterior.check()
    if compat == "cogen":
        chosen = cogen_settings() | settings
        result = sample(key, tempered_prior_path(posterior), collect=None, **chosen)
        # That path's base has no posterior to draw images from, so they are drawn here.
        picture = jax.jit(lambda target, z: jax.vmap(target.image)(z))
        drawn = np.asarray(picture(posterior, result.position))[:, None]
        result = result._replace(
            draws={"position": jax.tree.map(lambda x: x[:, None], result.position), "image": drawn},
            weights=np.full(len(drawn), 1 / len(drawn)),  # the paper has none
        )
    else:
        fold = None if keep else folding(lambda stack: _residuals(full, stack)[:2])
        result = sample(key, posterior, collect=images, reduce=fold, **(_SETTINGS | settings))
    found = summarise(result, posterior, full, level=level)
    if settings.get("folder") is not None:
        _leave(settings["folder"], task, found, noise, truth)
    return found


def _leave(
    folder: Any, task: tuple[str, dict[str, Any]], found: Reconstruction, noise: Any, truth: Any
) -> None:
    """Add the maps to the run's folder, for the report."""
    name, maps = task
    stored = {"mean": found.mean, "deviation": found.deviation, "low": found.low}
    stored |= {"high": found.high, **maps}
    if truth is not None:
        stored["truth"] = truth
    facts = {
        "noise": found.noise,
        "residual": found.residual,
        "misfit": found.misfit,
        "out_of_reach": found.out_of_reach,
        "interval": found.level,
        "notes": list(found.notes),
    }
    amend(folder, f"jaxgen.tasks.{name}", name, stored, facts, {"noise": noise})


def summarise(
    result: SampleResult, posterior: Posterior, condition: Condition, *, level: float = 0.9
) -> Reconstruction:
    """Return a run's draws as a `Reconstruction`.

    Args:
      result: from `sample(collect=images)`.
      posterior: what was sampled.
      condition: the part of its condition that saw pixels.
      level: of the credible intervals.
    """
    if is_traced(result.weights):
        return _summarise_traced(result, posterior, condition, level)
    chosen = np.asarray(result.weights, np.float64)
    tail = (1 - level) / 2
    drawn = result.draws
    if isinstance(drawn, StreamedDraws):
        moments, last = drawn.moments, drawn.last
        low, high = histogram_quantiles(drawn.counts, (tail, 1 - tail))
        squares, scales = drawn.misses / moments.weight, drawn.scales / moments.weight
    elif isinstance(drawn, Mapping) and "image" in drawn:
        stack = np.asarray(drawn["image"])
        # A chain at a time: what is computed from draws is several times as large as they are.
        each = [add(None, chain) for chain in stack]
        moments = Moments(*(np.stack(part) for part in zip(*each, strict=True)))
        last = jax.tree.map(lambda x: x[:, -1], drawn)
        flat = stack.reshape(-1, *stack.shape[2:])
        weights = np.repeat(chosen / stack.shape[1], stack.shape[1])
        low, high = quantiles(flat, (tail, 1 - tail), None if np.ptp(chosen) < 1e-9 else weights)
        misses = [_residuals(condition, chain)[:2] for chain in stack]
        squares, scales = (
            np.asarray([np.mean(x) for x in part]) for part in zip(*misses, strict=True)
        )
    else:
        raise expected("result", "draws with images", "others", "Give collect=jaxgen.images")
    whole: Moments = pooled(moments, chosen)

    density = evaluate(posterior, last["position"], batch=16).log_density
    order = np.lexsort((-density, -chosen.round(9)))

    unit, spread = _scale_of(condition)
    residual = float(np.sqrt(np.dot(chosen, squares)))
    noise = float(np.dot(chosen, scales) * unit)
    is_learned = isinstance(condition, LearnedNoise | NoiseLevels)
    misfit = residual / (spread if is_learned else noise)
    out_of_reach = misfit > (_UNEXPLAINED if is_learned else _TOO_FAR)
    notes = tuple(result.notes)
    if out_of_reach:
        if is_learned:
            reason = f"the draws miss it by {residual:.3f}, and it varies by {spread:.3f}"
        else:
            reason = f"the draws miss it by {residual:.3f}, {misfit:.1f} times the noise level"
        way_out = "" if is_learned else "; raise the noise level, or learn it"
        notes = (*notes, f"the observation is out of the generator's reach: {reason}{way_out}")
    return Reconstruction(
        mean=whole.mean.astype(np.float32),
        deviation=whole.deviation.astype(np.float32),
        low=low,
        high=high,
        level=level,
        samples=np.asarray(last["image"])[order],
        sample_weights=chosen[order],
        noise=noise,
        residual=residual,
        misfit=misfit,
        out_of_reach=bool(out_of_reach),
        notes=notes,
        result=result,
    )


def _summarise_traced(
    result: SampleResult, posterior: Posterior, condition: Any, level: float
) -> Reconstruction:
    """Sum up inside a transformation of JAX, by `jax.numpy`, all draws in memory."""
    stack = result.draws["image"]
    chosen = result.weights
    flat = stack.reshape(-1, *stack.shape[2:])
    each = jnp.repeat(chosen / stack.shape[1], stack.shape[1])
    mean: Any = jnp.tensordot(each, flat, 1)
    deviation: Any = jnp.sqrt(jnp.tensordot(each, jnp.square(flat - mean[None]), 1))
    tails = np.asarray([(1 - level) / 2, (1 + level) / 2])
    low, high = weighted_quantiles(flat, tails, each)
    squares, scales = (x.reshape(stack.shape[:2]).mean(1) for x in _residuals(condition, flat)[:2])
    last = jax.tree.map(lambda x: x[:, -1], result.draws)
    density = jax.lax.map(posterior, last["position"], batch_size=16)
    rank = jnp.lexsort((-density, -jnp.round(chosen, 9)))
    unit, spread = _scale_of(condition)
    residual: Any = jnp.sqrt(jnp.dot(chosen, squares))
    noise = jnp.dot(chosen, scales) * unit
    is_learned = isinstance(condition, LearnedNoise | NoiseLevels)
    misfit = residual / (spread if is_learned else noise)
    return Reconstruction(
        mean=mean,
        deviation=deviation,
        low=low,
        high=high,
        level=level,
        samples=last["image"][rank],
        sample_weights=chosen[rank],
        noise=noise,
        residual=residual,
        misfit=misfit,
        out_of_reach=misfit > (_UNEXPLAINED if is_learned else _TOO_FAR),
        notes=(
            "made under jax.jit or jax.vmap: look at out_of_reach, and at the notes of "
            "result.settled()",
        ),
        result=result,
    )


@jax.jit
def _residuals(condition: Any, stack: ArrayLike) -> Any:
    """Each image's mean squared residual, and noise scale in units of the condition's."""
    base = _bare(condition)

    def one(image: Any) -> tuple[Any, Any]:
        residual = base.residual(image)
        kept = base.kept(residual)
        size = jnp.square(jnp.abs(residual)) / _parts(residual)
        kept = jnp.ones_like(size) if kept is None else (kept > 0).astype(size.dtype)
        square = jnp.sum(kept * size) / jnp.sum(kept)
        scale = condition.noise_scale(image) if base is not condition else jnp.ones(())
        return square, scale

    return jax.lax.map(one, stack, batch_size=64)


def _scale_of(condition: Condition) -> tuple[Any, Any]:
    """Return the condition's noise (its unit if learned) and the deviation of what was seen."""
    base = _bare(condition)
    kept = base.kept(base.observed)
    if is_traced(base):
        share = jnp.broadcast_to(1.0 if kept is None else 1.0 * (kept > 0), base.observed.shape)
        share = share / jnp.sum(share)
        mean = jnp.sum(share * base.observed)
        square = jnp.square(jnp.abs(base.observed - mean)) / _parts(base.observed)
        spread = jnp.sqrt(jnp.sum(share * square))
        return jnp.sqrt(jnp.mean(jnp.square(base.noise))), spread
    seen = np.asarray(base.observed)
    seen = seen if kept is None else seen[np.broadcast_to(np.asarray(kept) > 0, seen.shape)]
    spread = float(np.std(seen) / np.sqrt(_parts(seen)))
    return float(np.sqrt(np.mean(np.square(np.asarray(base.noise))))), spread


def _parts(values: Any) -> int:
    """Return how many numbers one entry is: a complex residual counts per real and imaginary."""
    return 2 if jnp.iscomplexobj(values) else 1


def _bare(condition: Condition) -> Any:
    """Return the condition under a learned noise level."""
    return condition.condition if isinstance(condition, LearnedNoise | NoiseLevels) else condition


def unit_noise(noise: float | str) -> Any:
    """Return the condition's noise; for a learned one, the unit that its scales multiply."""
    return jnp.asarray(0.1 if isinstance(noise, str) else noise, jnp.float32)
