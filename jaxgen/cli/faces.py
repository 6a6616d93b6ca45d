"""`jaxgen inpaint --generator mobilestylegan-ffhq`: the hidden part of a photograph of a face.

A gradient of this network's images takes a second and more, so that the sampler sees cells of
16 x 16 (`jaxgen.applications.coarse`); the draws are the network's own, at 512 px, stored at 256.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen.applications.alignment import align_face
from jaxgen.applications.coarse import cells, complete
from jaxgen.cli import inputs, reconstruct, runs
from jaxgen.cli.budget import duration, time_of_gradient
from jaxgen.cli.options import typed
from jaxgen.cli.progress import Reporter
from jaxgen.core.errors import expected
from jaxgen.plotting.pictures import masked, reconstructions
from jaxgen.target.conditions import ObservedPixels

__all__ = ["BUDGETS", "framed", "run"]

NAME = "mobilestylegan-ffhq"
SIDE, SIZE = 16, 256
# Gradients for each chain that annealing took on faces, with a conditional ESS of one half. It is
# as good as proportional to cess / (1 - cess), since that is one over the weights' variance.
_ANNEALING = 160
_SHARED = {"leapfrog": 12, "warmup": 3, "probes": 128, "pool": 16, "cess": 0.5}
BUDGETS: dict[str, dict[str, Any]] = {
    "quick": {"num_chains": 8, "burn_in": 4, "num_steps": 6, "draws": 2},
    "standard": {"num_chains": 16, "burn_in": 6, "num_steps": 9, "draws": 3},
    "paper": {"num_chains": 32, "burn_in": 32, "num_steps": 96, "draws": 4, "pool": 256,
              "probes": 512, "cess": 0.8},
}  # fmt: skip
"""Budget -> settings of `jaxgen.applications.coarse.complete`."""

# Options of `inpaint` that mean nothing here, and would be ignored.
_UNUSED = (
    "--chains", "--kernel", "--betas", "--num-mcmc-steps", "--moves", "--warmup", "--steps",
    "--until", "--thin", "--step-size", "--resample", "--tile", "--resume",
)  # fmt: skip


def framed(options: Namespace) -> tuple[inputs.Picture, np.ndarray]:
    """Return the picture in the frame of FFHQ `[256, 256, 3]`, and 1 where it was seen.

    Raises:
      InputError: for a picture that cannot be read, or of which nobody said where the face is.
    """
    picture = inputs.read_photo(options.image)
    image, mask = picture.image, picture.mask
    opaque = np.ones(image.shape[:2], np.float32) if mask is None else mask
    if options.landmarks is not None:
        if options.aligned:
            raise expected("--aligned", "no --landmarks beside it", options.landmarks)
        points = _points(options.landmarks)
        both = np.concatenate([image, opaque[..., None]], -1)
        aligned, inside = align_face(both, points[:2], points[2:4], points[4:], SIZE)
        seen = inside * (aligned[..., 3] > 0.999)
        return picture._replace(image=aligned[..., :3]), seen.astype(np.float32)
    if not options.aligned:
        hint = (
            "Give --landmarks X,Y,X,Y,X,Y (both eyes and the middle of the mouth, in pixels), or "
            "--aligned for a square with the eyes at 0.375 and 0.625 of its width and 0.47 of its "
            "height, the mouth at 0.73"
        )
        got = f"{picture.name}, in an unknown frame"
        raise expected("IMAGE", "a face in the frame of FFHQ", got, hint)
    height, width = image.shape[:2]
    if height != width or height < SIDE:
        raise expected("IMAGE", "a square picture with --aligned", f"{width} x {height} pixels")
    return picture._replace(image=_resized(image)), (_resized(opaque) > 0.999).astype(np.float32)


def run(options: Namespace) -> int:
    """Complete a photograph, save it and print its figures; returns the exit code."""
    from pathlib import Path

    if Path(options.image).is_dir():
        raise expected("IMAGE", "one picture for this generator", options.image)
    if isinstance(options.noise, str) or options.label is not None:
        name = "--class" if options.label is not None else "--noise"
        raise expected(name, "no class, and a number for the noise, with this generator", "others")
    words = {word.partition("=")[0] for word in typed()}
    for option in _UNUSED:
        if option in words:
            hint = "Give --budget quick, standard or paper"
            raise expected(option, "no setting of the sampler with this generator", "one", hint)
    noise = options.noise if "--noise" in words else 0.03
    picture, known = framed(options)
    mask = known
    if options.mask is not None:
        mask = known * inputs.read_mask(options.mask, (SIZE, SIZE))
    if not np.any(mask == 0):
        raise expected("--mask", "something that is hidden", "none", "As in --mask lower-half")
    seen = (cells(mask, SIDE) == 1).astype(np.float32)
    if not seen.any():
        raise expected("--mask", "at least one cell of 16 x 16 pixels that was seen", "none")
    cheap = runs.load(f"{NAME}/p-{SIDE}", "generator", "--model")
    full = runs.load(f"{NAME}/p-512", "generator", "--model")
    prior = jaxgen.Gaussian.standard(cheap.info.input_shape)
    settings = {**_SHARED, **BUDGETS[options.budget or "standard"]}
    observed = cells(picture.image, SIDE).astype(np.float32)
    error = 0.12  # what the network cannot make of a photograph, and what its cheap view misses
    if not options.quiet:
        condition = ObservedPixels(jnp.asarray(observed), jnp.asarray(seen), jnp.float32(error))
        each = time_of_gradient(jaxgen.Posterior(prior, cheap.network, condition), batch=2)
        count, chains = _gradients(settings), settings["num_chains"]
        made = chains * (settings["draws"] + 1)
        one = jax.jit(lambda network, v: network(v))
        v = prior.sample(jax.random.key(0))
        one(full.network, v).block_until_ready()
        begun = time.perf_counter()
        one(full.network, v).block_until_ready()
        drawing = made * (time.perf_counter() - begun)
        # Devices share chains and draws out; probes of the information run on one of them.
        devices = len(jax.local_devices())
        total = (each * count * chains + drawing) / devices + each * 3 * settings["probes"]
        print(
            f"budget {options.budget or 'standard'}: {chains} chains of about "
            f"{count} gradients, {1e3 * each:.2g} ms each here, and {made - chains} draws: about "
            f"{duration(total)}, and compiling; longer where the chains have not arrived by then",
            file=sys.stderr,
            flush=True,
        )
    path = runs.out_folder(options, "inpaint")
    begun = time.monotonic()
    steps = _steps(settings)
    with Reporter(1, quiet=options.quiet, num_mcmc_steps=1, steps=steps) as reporter:
        reporter.start(picture.name)
        found = complete(
            options.seed,
            cheap.network,
            full.network,
            observed,
            seen,
            prior=prior,
            noise=noise,
            error=error,
            reduction=2,
            progress=reporter.update,
            **settings,
        )
    count = settings["draws"]
    shape = (settings["num_chains"], count, *found.images.shape[1:])
    drawn = {**found.result.draws, "image": found.images.reshape(shape)}
    result = found.result._replace(draws=drawn, notes=found.notes)
    facts = {
        "residual": found.residual,
        "cheap_residual": found.cheap_residual,
        "view_error": found.view_error,
        "interval": found.level,
    }
    done = runs.Finished("image", picture.name, result, time.monotonic() - begun, facts)
    task = reconstruct.Task(
        truth=None,
        hidden=1 - mask,
        shown=masked(picture.image, mask),
        label=picture.name,
        note=options.mask or "frame",
    )
    done = reconstruct.finish(done, task)
    line = reconstruct.row(done, task, (found.low, found.high))
    page = reconstructions([line], observed="observed", scale=1)
    data = runs.summary("inpaint", vars(options), [cheap, full], [done],
                        observed_cells=int(seen.sum()))  # fmt: skip
    more = {**reconstruct.arrays([done], [line]), "image/mask": mask}
    data = runs.save(path, data, [done], {"inpainting.png": page}, force=options.force, more=more)
    runs.print_results(data, path, as_json=options.json)
    return 0


def _steps(settings: dict[str, Any]) -> int:
    """Return a chain's kernel steps at temperature one."""
    return 2 * settings["warmup"] + settings["burn_in"] + settings["num_steps"]


def _gradients(settings: dict[str, Any]) -> int:
    """Return about how many gradients a chain takes."""
    cess = settings["cess"]
    return round(_ANNEALING * cess / (1 - cess)) + settings["leapfrog"] * _steps(settings)


def _points(text: str) -> list[float]:
    """Return six numbers, or raise `InputError`."""
    try:
        points = [float(part) for part in text.split(",")]
    except ValueError:
        points = []
    if len(points) != 6 or not np.all(np.isfinite(points)):
        raise expected("--landmarks", "six numbers, X,Y,X,Y,X,Y", text)
    return points


def _resized(image: np.ndarray) -> np.ndarray:
    """Return a square image at 256 px, each channel by itself."""
    from PIL import Image

    planes = image if image.ndim == 3 else image[..., None]
    made = [
        np.asarray(Image.fromarray(plane).resize((SIZE, SIZE), Image.Resampling.BOX))
        for plane in np.moveaxis(planes.astype(np.float32), -1, 0)
    ]
    found = np.stack(made, -1)
    return found if image.ndim == 3 else found[..., 0]
