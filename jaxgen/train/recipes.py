"""Recipes for training: a table of them, and `run` to repeat one.

All shipped networks have one; so do some whose weights are not shipped
(`jaxgen.models.registry.TRAINABLE`).

A recipe is a method, its hyper-parameters and a seed; all of it is written into the
metadata of the weight files it makes, with figures measured on the weights as stored. Recipes
of text join the table when `jaxgen.sequences.recipes` is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxgen.core.errors import expected
from jaxgen.core.types import Device
from jaxgen.train import conditional_jobs, generator_jobs
from jaxgen.train.job import Job, Progress, Recipe

__all__ = ["RECIPES", "Recipe", "register", "run"]

_JOBS: dict[str, Callable[[Job], Iterable[Path]]] = {
    **generator_jobs.JOBS,
    **conditional_jobs.JOBS,
}
_CONFIGS: dict[str, Callable[..., Any]] = {**generator_jobs.CONFIGS, **conditional_jobs.CONFIGS}

RECIPES: dict[str, Recipe] = {
    "fashion-mnist/dcgan": Recipe("gan", 10_500, options={"decay_from": 0.6}),
    "fashion-mnist/gan": Recipe("projected", 7_500),
    "fashion-mnist/vae": Recipe("vae", 8_000, options={"likelihood": "bernoulli"}),
    "fashion-mnist/vae-gaussian": Recipe("vae", 8_000, seed=1, options={"likelihood": "gaussian"}),
    "fashion-mnist/cnn": Recipe(
        "classifier", 6_500, options={"shift": 0}, model={"network": "cnn.Classifier"}
    ),
    "fashion-mnist/classifier": Recipe("rejecting", 6_500, model={"draws": "fashion-mnist/gan"}),
    "fashion-mnist/judge": Recipe(
        "classifier",
        3_500,
        seed=1,
        options={"shift": 0},
        model={"network": "judge.Judge", "width": 24},
    ),
    "fashion-mnist/realism": Recipe("realism", 600),
    "fashion-mnist/ppgn": Recipe("ppgn", 3_000, model={"start": "fashion-mnist/dcgan"}),
    "fashion-mnist/ppgn-joint": Recipe(
        "ppgn",
        1_000,
        seed=1,
        options={"h": 1.0, "noise_x": 0.01, "noise_h1": 0.1, "noise_h": 0.1},
        model={"start": "fashion-mnist/ppgn"},
    ),
    "fashion-mnist/dae-codes": Recipe("autoencoder", 8_000, options={"noise": 0.6}),
    "fashion-mnist/dae-images": Recipe(
        "autoencoder", 3_000, options={"of": "images", "noise": 0.1, "batch": 64}
    ),
    # More updates raise the nll of 3,000 further training images: 0.74 here, 0.95 after 3,000.
    "fashion-mnist/captioner": Recipe("captions", 800),
    # With the paper's gamma of 0.5 it makes few kinds of images: see benchmarks/papers/README.md.
    "fashion-mnist/began": Recipe(
        "began",
        14_000,
        options={"gamma": 0.9, "lr": 4e-4, "rate_k": 1e-2, "patience": 6, "residual": 0},
    ),
    # The same with a classifier's maps in the loss, to see what the loss of pixels lacks.
    "fashion-mnist/began-features": Recipe(
        "began",
        4_000,
        options={
            "gamma": 0.9,
            "lr": 4e-4,
            "rate_k": 1e-2,
            "patience": 6,
            "residual": 0,
            "features": 0.1,
        },
    ),
    "fashion-mnist/wgan-gp": Recipe(
        "gan",
        4_000,
        options={
            "loss": "wgan-gp",
            "spectral": False,
            "critic_steps": 5,
            "width": 32,
            "lr_generator": 2e-4,
            "lr_discriminator": 2e-4,
            "beta1": 0.0,
            "beta2": 0.9,
        },
    ),
    "fashion-mnist/beta-vae": Recipe("vae", 8_000, options={"beta": 4.0}),
    "fashion-mnist/bgan": Recipe("bgan", 6_000, model={"width": 16}),
    "toy2d/gan": Recipe("toy", 15_000, options={"batch": 256}, dtype="float32"),
}


def register(
    recipes: Mapping[str, Recipe],
    jobs: Mapping[str, Callable[[Job], Iterable[Path]]],
    configs: Mapping[str, Callable[..., Any]],
) -> None:
    """Add recipes, with the job and the configuration of each method that they name."""
    RECIPES.update(recipes)
    _JOBS.update(jobs)
    _CONFIGS.update(configs)


def run(
    name: str,
    *,
    out: str | Path,
    seed: int | None = None,
    steps: int | None = None,
    data_dir: str | None = None,
    snapshots: Sequence[int] = (),
    progress: Progress | None = None,
    devices: Sequence[Device] | None = None,
    text: str | Path | None = None,
    vocabulary: int | None = None,
) -> list[Path]:
    """Train a network again, from the recipe of its name.

    A run that was stopped goes on from its checkpoint in `out`, to the same result.

    Args:
      name: a key of `RECIPES`.
      out: the folder for the weight files and the checkpoint.
      seed: another seed than the recipe's.
      steps: another number of updates (schedules shrink with it).
      data_dir: the folder of Fashion-MNIST, see `jaxgen.data.fashion_mnist`.
      snapshots: numbers of updates after which a GAN's or BEGAN's generator is also written, as
        `NAME-UPDATES`; they change nothing in the run itself.
      progress: called with the number of updates done and the mean metrics since.
      devices: to spread each batch over, see `jaxgen.train.loop.train_loop`.
      text: for `text/...`, a file with a sentence on each line, see `jaxgen.sequences.jobs`.
      vocabulary: for `text/...`, how many of its words at most are told apart.

    Returns:
      The weight files written.

    Raises:
      InputError: for an unknown name, fewer than one step, missing data, snapshots of a
        network or at a step that has none, or a text where none belongs.
    """
    if name not in RECIPES:
        hint = "Import jaxgen.sequences.recipes, which adds text/..."
        raise expected("name", f"one of {', '.join(RECIPES)}", repr(name), hint)
    if steps is not None and steps < 1:
        raise expected("steps", "at least 1", steps)
    recipe = RECIPES[name]
    of_text = name.startswith("text/")
    for field_name, value in (("text", text), ("vocabulary", vocabulary)):
        if value is not None and not of_text:
            raise expected(field_name, f"none for {name}", str(value), "It is for text/...")
    options = recipe.options if vocabulary is None else {**recipe.options, "vocabulary": vocabulary}
    recipe = Recipe(
        recipe.method,
        recipe.steps if steps is None else steps,
        recipe.seed if seed is None else seed,
        options,
        recipe.model,
        recipe.dtype,
    )
    stops = tuple(sorted(set(snapshots)))
    if stops and recipe.method not in ("gan", "projected", "began"):
        raise expected("snapshots", "none for this network", list(stops), "fashion-mnist/dcgan has")
    if stops and not 1 <= stops[0] <= stops[-1] <= recipe.steps:
        raise expected("snapshots", f"steps from 1 to {recipe.steps}", list(stops))
    spread = None if devices is None else tuple(devices)
    words = None if text is None else Path(text)
    config = _CONFIGS[recipe.method](steps=recipe.steps, **recipe.options)
    job = Job(name, recipe, config, Path(out), data_dir, progress, stops, spread, words)
    return list(_JOBS[recipe.method](job))
