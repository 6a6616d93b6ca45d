"""Co-generation: the rest of an image, or a sharper one, from what was seen of it.

`inpaint`, `super_resolve` and `reconstruct` compose a posterior, call `jaxgen.sample` and
summarise its draws: posterior mean, deviation, credible intervals, samples, and whether the
generator could have made what was seen at all. Fang & Schwing (NeurIPS 2019) state the
problem; `compat="cogen"` is their method, and everything else a better one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.applications.noise import learned, unit_noise
from jaxgen.applications.reconstruction import Reconstruction
from jaxgen.applications.summarise import residuals, summarise
from jaxgen.core.deprecation import former_keyword
from jaxgen.core.errors import expected
from jaxgen.core.types import Array, Condition, Device, Generator, Prior, PRNGKey
from jaxgen.diagnostics.streaming import folding
from jaxgen.inference.finished import amend
from jaxgen.inference.sample import images, sample
from jaxgen.kernels import HMC, Kernel
from jaxgen.models import load
from jaxgen.models.registry import describe
from jaxgen.sampler.config import Callback
from jaxgen.target.conditions import GaussianNoise, LowResolution, ObservedPixels, Operator
from jaxgen.target.path import tempered_prior_path
from jaxgen.target.posterior import Posterior
from jaxgen.target.priors import Gaussian
from jaxgen.tempering.betas import Betas, by_name
from jaxgen.tempering.step_size import CoGeneration, StepSize

__all__ = [
    "COGEN_NOISE",
    "Reconstruction",
    "TaskOptions",
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


class SampleOptions(TypedDict, total=False):
    """Keyword arguments that the tasks pass on to `jaxgen.sample`, which explains them."""

    kernel: Kernel
    num_chains: int
    num_steps: int
    thin: int
    warmup: int
    betas: Betas
    num_mcmc_steps: int | None
    num_islands: int | None
    pool: int | None
    pilot: bool | None
    step_size: StepSize
    resample: str | None
    resample_threshold: float
    precondition: bool | str
    tile: int | None
    memory: int | None
    devices: Sequence[Device] | None
    shard_weights: bool
    start: Any
    folder: str | os.PathLike[str] | None
    resume: bool
    checkpoint_every: float
    precision: str
    progress: Callback | bool | None


class TaskOptions(SampleOptions, total=False):
    """Keyword arguments of every task, besides those of `jaxgen.sample`.

    Attributes:
      prior: a distribution over latents, required unless `generator` is the name of a shipped
        model.
      also: another condition on the image, such as a class.
      redundancy: how many residuals count as one where the noise is learned; by default those in
        a patch of ten pixels.
      level: probability of the credible intervals, 0.9.
      compat: "cogen" for the settings of the co-generation authors in everything but the
        condition (give them noise=COGEN_NOISE).
      keep: False summarises the draws as they come and keeps none
        (`jaxgen.diagnostics.streaming`), for many draws or large images.
      truth: the whole image, where it is known. No draw depends on it; with `folder` the report
        shows the error beside it.
    """

    prior: Prior | None
    also: Condition | None
    redundancy: float | None
    level: float
    compat: str | None
    keep: bool
    truth: ArrayLike | None


# Pixels constrain a GAN's latents jointly: a short pilot is enough to find them, and the second
# annealing, which starts near them, corrects for what the pilot leaves out.
_SETTINGS: SampleOptions = {
    "num_chains": 64,
    "kernel": HMC(10, jitter=True),
    "warmup": 10,
    "num_steps": 20,
    "thin": 1,
}


@former_keyword("moves", "num_mcmc_steps")
def inpaint(
    key: PRNGKey,
    generator: Generator | str,
    image: ArrayLike,
    mask: ArrayLike,
    *,
    noise: float | str = 0.1,
    **more: Unpack[TaskOptions],
) -> Reconstruction:
    """Complete an image: p(z) N(observed pixels; G(z), noise^2).

    Args:
      key: consumed.
      generator: a network (then give `prior`), or the name of a shipped generator.
      image: `[H, W, channels]` in [0, 1]; hidden pixels may hold anything finite.
      mask: 1 where observed, 0 where hidden, `[H, W]` or of the image's shape.
      noise: standard deviation of the observation, or "learn".
      more: see `TaskOptions`.

    Returns:
      A `Reconstruction`.

    Raises:
      InputError: for arguments that cannot be used.
    """
    image, mask = jnp.asarray(image, jnp.float32), jnp.asarray(mask, jnp.float32)
    full = mask[..., None] if mask.ndim == image.ndim - 1 else mask
    seen = jnp.where(full > 0, image, 0.0)  # hidden pixels are zeroed so that they cannot leak
    condition = ObservedPixels(seen, mask, unit_noise(noise))
    maps = {"view": seen, "mask": mask if mask.ndim == 2 else jnp.min(mask, axis=-1)}
    return _solve(key, generator, condition, noise=noise, task=("inpaint", maps), **more)


@former_keyword("moves", "num_mcmc_steps")
def super_resolve(
    key: PRNGKey,
    generator: Generator | str,
    view: ArrayLike,
    factor: int,
    *,
    method: str = "average",
    noise: float | str = 0.05,
    **more: Unpack[TaskOptions],
) -> Reconstruction:
    """Sharpen a view: p(z) N(view; A G(z), noise^2), A a reduction by `factor`.

    Args:
      key: consumed.
      generator: as in `inpaint`.
      view: `[H / factor, W / factor, channels]` in [0, 1].
      factor: how many pixels make one, each way.
      method: "average" (boxes) or "stride" (every factor-th pixel).
      noise: standard deviation of the view, or "learn".
      more: see `TaskOptions`.

    Returns:
      A `Reconstruction`.

    Raises:
      InputError: for arguments that cannot be used.
    """
    view = jnp.asarray(view, jnp.float32)
    condition = LowResolution(view, unit_noise(noise), factor, method)
    task = ("super_resolve", {"view": view})
    return _solve(key, generator, condition, noise=noise, task=task, **more)


@former_keyword("moves", "num_mcmc_steps")
def reconstruct(
    key: PRNGKey,
    generator: Generator | str,
    observation: ArrayLike,
    operator: Callable[[Array], Array],
    *,
    noise: float | str = 0.1,
    **more: Unpack[TaskOptions],
) -> Reconstruction:
    """Return an image from a function of it: p(z) N(observation; A(G(z)), noise^2).

    Args:
      key: consumed.
      generator: a network (then give `prior`), or the name of a shipped generator.
      observation: y, of the shape of A(image), real or complex as A(image) is. Of a complex one
        the noise is that of the real and of the imaginary part each.
      operator: A: one of `jaxgen.target.conditions.operators`, or any function of an image.
      noise: a standard deviation, or "learn": one of thirteen levels from 0.01 to 0.64 that
        are equally likely beforehand, integrated out (`NoiseLevels`); or "student-t": an
        inverse gamma prior worth two observations of level 0.1 (`LearnedNoise`).
      more: see `TaskOptions`.

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


def cogen_settings(num_chains: int = 10, name: str = "cogen-images") -> SampleOptions:
    """Return the co-generation authors' sampler, as `sample` takes it.

    Raw sigmoid betas with one HMC step of 20 leapfrogs at each, one step size for all
    chains times 1.02 or 0.98, no preconditioning, no resampling, no weights; the path
    tempers the prior away (`tempered_prior_path`). One step more at the end is the draw.
    """
    return {
        "kernel": HMC(20),
        "num_chains": num_chains,
        "betas": by_name(name),
        "num_mcmc_steps": 1,
        "step_size": CoGeneration(),
        "resample": None,
        "precondition": False,
        "warmup": 0,
        "num_steps": 1,
        "thin": 1,
    }


def _solve(
    key: PRNGKey,
    generator: Generator | str,
    condition: GaussianNoise,
    *,
    noise: float | str,
    task: tuple[str, dict[str, Array]],
    truth: ArrayLike | None = None,
    prior: Prior | None = None,
    also: Condition | None = None,
    redundancy: float | None = None,
    level: float = 0.9,
    compat: str | None = None,
    keep: bool = True,
    **settings: Unpack[SampleOptions],
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
        fold = None if keep else folding(lambda stack: residuals(full, stack)[:2])
        result = sample(key, posterior, collect=images, reduce=fold, **(_SETTINGS | settings))
    found = summarise(result, posterior, full, level=level)
    folder = settings.get("folder")
    if folder is not None:
        _leave(folder, task, found, noise, truth)
    return found


def _leave(
    folder: str | os.PathLike[str],
    task: tuple[str, dict[str, Array]],
    found: Reconstruction,
    noise: float | str,
    truth: ArrayLike | None,
) -> None:
    """Add the maps to the run's folder, for the report."""
    name, maps = task
    stored = {"mean": found.mean, "deviation": found.deviation, "low": found.low}
    stored |= {"high": found.high, **maps}
    if truth is not None:
        stored["truth"] = np.asarray(truth)
    facts = {**found.facts(), "notes": list(found.notes)}
    amend(folder, f"jaxgen.tasks.{name}", name, stored, facts, {"noise": noise})
