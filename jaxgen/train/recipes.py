"""How networks are trained: a table of recipes, and `run` to repeat one.

All shipped networks have one; so do some whose weights are not shipped
(`jaxgen.models.registry.TRAINABLE`).

A recipe is a method, its hyper-parameters and a seed; all of it is written into the
metadata of the weight files it makes, with figures measured on the weights as stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen import data
from jaxgen.errors import expected
from jaxgen.models import cnn, judge
from jaxgen.models.layers import Conv
from jaxgen.train import classifier, figures, gan, image_jobs, jobs, text_jobs, toy, vae
from jaxgen.train.loop import train_loop
from jaxgen.types import Array, ArrayTree, PRNGKey
from jaxgen.weights import flatten, save_weights

__all__ = ["RECIPES", "Recipe", "run"]

Progress = Callable[[int, dict[str, float]], None]

_FASHION = "Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, MIT licence), 60 000 training images"
_RING = "five Gaussians on the unit circle, covariance 0.002 I, drawn afresh at every step"
_UNIT = "images [28, 28, 1] in [0, 1]; the network scales them itself"
_NORMAL = "latent standard normal"


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
      method: "gan", "vae", "classifier", "toy", "began", "bgan", "realism", "ppgn",
        "captions", "autoencoder", "seqgan" or "maskgan": the file of `jaxgen.train`.
      steps: number of updates.
      seed: of the only random key.
      options: the hyper-parameters that differ from the method's defaults.
      model: configuration of the network.
      dtype: how the weights are stored.
    """

    method: str
    steps: int
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float16"


RECIPES: dict[str, Recipe] = {
    "fashion-mnist/dcgan": Recipe("gan", 10_500, options={"decay_from": 0.6}),
    "fashion-mnist/vae": Recipe("vae", 8_000, options={"likelihood": "bernoulli"}),
    "fashion-mnist/vae-gaussian": Recipe("vae", 8_000, seed=1, options={"likelihood": "gaussian"}),
    "fashion-mnist/cnn": Recipe(
        "classifier", 6_500, options={"shift": 0}, model={"network": "cnn.Classifier"}
    ),
    "fashion-mnist/judge": Recipe(
        "classifier",
        3_500,
        seed=1,
        options={"shift": 0},
        model={"network": "judge.Judge", "width": 24},
    ),
    "fashion-mnist/realism": Recipe("realism", 600),
    "fashion-mnist/ppgn": Recipe("ppgn", 400, model={"start": "fashion-mnist/dcgan"}),
    "fashion-mnist/ppgn-joint": Recipe(
        "ppgn",
        150,
        seed=1,
        options={"h": 1.0, "noise_x": 0.01, "noise_h1": 0.1, "noise_h": 0.1},
        model={"start": "fashion-mnist/ppgn"},
    ),
    "fashion-mnist/dae-codes": Recipe("autoencoder", 8_000, options={"noise": 0.6, "lr": 2e-3}),
    "fashion-mnist/dae-images": Recipe(
        "autoencoder", 400, options={"of": "images", "noise": 0.1, "batch": 64}
    ),
    # More updates raise the nll of 3,000 further training images: 0.74 here, 0.95 after 3,000.
    "fashion-mnist/captioner": Recipe("captions", 800),
    # With the paper's gamma of 0.5 it makes few kinds of images: see benchmarks/README.md.
    "fashion-mnist/began": Recipe(
        "began",
        5_500,
        options={"gamma": 0.9, "lr": 4e-4, "halve": 2_000, "rate_k": 2e-2, "ema": 0.998},
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
    # Of a text of one's own: `jaxgen train text/writer --text FILE`.
    "text/writer": Recipe("seqgan", 6_000),
    "text/seqgan": Recipe("seqgan", 6_400, options={"judge": 0.05, "game": 0.01}),
    "text/infiller": Recipe("maskgan", 3_000),
    "text/maskgan": Recipe("maskgan", 3_700, options={"judge": 0.05, "game": 0.135}),
}

_SNAPSHOTS = (500, 1_500, 2_500, 15_000)


@dataclass(frozen=True)
class _Run:
    """What every method needs to know."""

    name: str
    recipe: Recipe
    out: Path
    data_dir: str | None
    progress: Progress | None
    snapshots: tuple[int, ...] = ()
    devices: tuple[Any, ...] | None = None
    text: Path | None = None

    def loop(
        self,
        key: PRNGKey,
        state: Any,
        step: Any,
        batcher: Any,
        arrays: Any,
        *,
        stage: str = "",
        first: int = 0,
        steps: int | None = None,
        mark: str = "",
        **more: Any,
    ):
        """`train_loop` with this run's checkpoint.

        Args:
          stage: of a run with several loops: the checkpoint is its own.
          first: updates in the stages before.
          steps: the recipe's if none is given.
          mark: of the data, if they are the user's: a checkpoint of others is refused.
        """
        tell = self.progress
        ending = f"-{stage}" if stage else ""
        return train_loop(
            key,
            state,
            step,
            batcher,
            arrays,
            steps=self.recipe.steps if steps is None else steps,
            checkpoint=self.out / f"{_file_name(self.name)}{ending}.checkpoint",
            fingerprint=json.dumps([self.name, repr(self.recipe), *([mark] if mark else [])]),
            progress=None if tell is None else lambda done, found: tell(first + done, found),
            devices=self.devices,
            **more,
        )

    def save(
        self,
        name: str,
        architecture: str,
        module: nnx.Module,
        config: dict[str, Any],
        preprocessing: str,
        measured: Callable[[Path], dict[str, Any]],
        **extra: Any,
    ) -> Path:
        """Store a network, measure it as stored, and store it again with its figures."""
        path = self.out / f"{_file_name(name)}.safetensors"
        recipe = self.recipe
        metadata = {
            "name": name,
            "architecture": {"name": architecture, "config": config},
            "preprocessing": preprocessing,
            "data": _RING if recipe.method == "toy" else _FASHION,
            "recipe": {
                "method": f"jaxgen.train.{recipe.method}",
                "steps": recipe.steps,
                "seed": recipe.seed,
                **_config(recipe)._asdict(),
            },
            "licence": "Apache-2.0",
            **extra,
        }
        arrays = flatten(module)
        save_weights(path, arrays, {**metadata, "figures": {}}, dtype=recipe.dtype)
        metadata["figures"] = measured(path)
        save_weights(path, arrays, metadata, dtype=recipe.dtype)
        return path


def run(
    name: str,
    *,
    out: str | Path,
    seed: int | None = None,
    steps: int | None = None,
    data_dir: str | None = None,
    snapshots: Sequence[int] = (),
    progress: Progress | None = None,
    devices: Sequence[Any] | None = None,
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
      snapshots: numbers of updates after which a GAN's generator is also written, as
        `NAME-UPDATES`; they change nothing in the run itself.
      progress: called with the number of updates done and the mean metrics since.
      devices: to spread each batch over, see `jaxgen.train.loop.train_loop`.
      text: for `text/...`, a file with a sentence on each line, see `jaxgen.train.text_jobs`.
      vocabulary: for `text/...`, how many of its words at most are told apart.

    Returns:
      The weight files written.

    Raises:
      InputError: for an unknown name, fewer than one step, missing data, snapshots of a
        network or at a step that has none, or a text where none belongs.
    """
    if name not in RECIPES:
        raise expected("name", f"one of {', '.join(RECIPES)}", repr(name))
    if steps is not None and steps < 1:
        raise expected("steps", "at least 1", steps)
    recipe = RECIPES[name]
    of_text = name.startswith("text/")
    if of_text and text is None:
        raise expected("text", "a file with a sentence on each line", "none")
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
    if stops and recipe.method != "gan":
        raise expected("snapshots", "none for this network", list(stops), "fashion-mnist/dcgan has")
    if stops and not 1 <= stops[0] <= stops[-1] <= recipe.steps:
        raise expected("snapshots", f"steps from 1 to {recipe.steps}", list(stops))
    spread = None if devices is None else tuple(devices)
    words = None if text is None else Path(text)
    job = _Run(name, recipe, Path(out), data_dir, progress, stops, spread, words)
    return list(_METHODS[recipe.method](job))


def _gan(job: _Run) -> Iterator[Path]:
    config = _config(job.recipe)
    init_key, loop_key = jax.random.split(jax.random.key(job.recipe.seed))
    images = jnp.asarray(data.fashion_mnist("train", job.data_dir).images)
    end_key = jax.random.fold_in(loop_key, config.steps)  # one step further than the loop's
    shape = {"latent": config.latent, "width": config.width}
    taken: list[Path] = []

    def save(name: str, generator: nnx.Module, **extra: Any) -> Path:
        return job.save(
            name,
            "dcgan.Generator",
            generator,
            shape,
            f"{_NORMAL}; images in [0, 1]",
            lambda path: figures.of_generator(path, job.data_dir),
            **extra,
        )

    def snapshot(step: int, state: ArrayTree) -> None:
        if step in job.snapshots:
            generator, _ = gan.finish(end_key, state, config)
            taken.append(save(f"{job.name}-{step}", generator, snapshot=step))

    state = job.loop(
        loop_key,
        gan.init(init_key, config),
        gan.make_step(config),
        lambda arrays, key: _draw(key, config.critic_steps * config.batch, *arrays)[0],
        (images,),
        visit=snapshot,
        stops=job.snapshots,
    )
    yield from taken
    generator, discriminator = gan.finish(end_key, state, config)
    yield save(job.name, generator)
    yield job.save(
        f"{job.name}-discriminator",
        "dcgan.Discriminator",
        discriminator,
        {"width": config.width},
        _UNIT,
        lambda path: figures.of_discriminator(
            path, job.out / f"{_file_name(job.name)}.safetensors", job.data_dir
        ),
    )


def _vae(job: _Run) -> Iterator[Path]:
    config = _config(job.recipe)
    init_key, loop_key = jax.random.split(jax.random.key(job.recipe.seed))
    images = jnp.asarray(data.fashion_mnist("train", job.data_dir).images)
    state = job.loop(
        loop_key,
        vae.init(init_key, config),
        vae.make_step(config),
        lambda arrays, key: _draw(key, config.batch, *arrays)[0],
        (images,),
    )
    encoder, decoder = vae.finish(state, config)
    encoder_path = job.out / f"{_file_name(job.name)}_encoder.safetensors"
    extra: dict[str, Any] = {"likelihood": config.likelihood}
    if decoder.log_sigma is not None:
        extra["sigma"] = float(jnp.exp(decoder.log_sigma[...]))
    yield job.save(
        f"{job.name}-encoder",
        "vae.Encoder",
        encoder,
        {"latent": config.latent},
        f"{_UNIT}; gives [2, latent], mean and log variance",
        lambda path: {},
        **extra,
    )
    yield job.save(
        job.name,
        "vae.Decoder",
        decoder,
        {"latent": config.latent, "sigma": decoder.log_sigma is not None},
        f"{_NORMAL}; images are the pixels' means, in [0, 1]",
        lambda path: {
            **figures.of_generator(path, job.data_dir),
            **figures.of_reconstruction(encoder_path, path, job.data_dir),
        },
        **extra,
    )


def _classifier(job: _Run) -> Iterator[Path]:
    config = _config(job.recipe)
    train = data.fashion_mnist("train", job.data_dir)
    make = {"cnn.Classifier": cnn.Classifier, "judge.Judge": judge.Judge}
    options = dict(job.recipe.model)
    network = options.pop("network")
    model = make[network](**options, dropout=config.dropout, rngs=nnx.Rngs(job.recipe.seed))
    for _, layer in nnx.iter_graph(model):
        if isinstance(layer, Conv):
            layer.form = "xla"  # the faster one in training, outside a compiled loop
    state = job.loop(
        jax.random.key(job.recipe.seed),
        classifier.init(model, config),
        classifier.make_step(model, config),
        lambda arrays, key: _draw(key, config.batch, *arrays),
        (jnp.asarray(train.images), jnp.asarray(train.labels)),
        scan=False,
    )
    final = make[network](**options, rngs=nnx.Rngs(0))
    nnx.update(final, state.average)
    yield job.save(
        job.name,
        network,
        final,
        options,
        _UNIT,
        lambda path: figures.of_classifier(path, job.data_dir),
        classes=list(data.CLASS_NAMES),
    )


def _toy(job: _Run) -> Iterator[Path]:
    config = _config(job.recipe)
    init_key, loop_key = jax.random.split(jax.random.key(job.recipe.seed))
    paths: list[Path] = []

    def snapshot(step: int, state: ArrayTree) -> None:
        paths.append(
            job.save(
                f"{job.name}-{step}",
                "mlp.ToyGenerator",
                toy.finish(state),
                {},
                f"{_NORMAL}; points of the plane",
                figures.of_toy,
                snapshot=step,
            )
        )

    job.loop(
        loop_key,
        toy.init(init_key, config),
        toy.make_step(config),
        lambda _, key: data.toy_ring(key, config.batch),
        (),
        chunk=500,
        visit=snapshot,
        stops=_SNAPSHOTS,
    )
    yield from paths


_METHODS = {
    "gan": _gan,
    "vae": _vae,
    "classifier": _classifier,
    "toy": _toy,
    **jobs.JOBS,
    **image_jobs.JOBS,
    **text_jobs.JOBS,
}
_CONFIGS = {
    **jobs.CONFIGS,
    **image_jobs.CONFIGS,
    **text_jobs.CONFIGS,
    "gan": gan.GANConfig,
    "vae": vae.VAEConfig,
    "classifier": classifier.ClassifierConfig,
    "toy": toy.ToyConfig,
}


def _config(recipe: Recipe) -> Any:
    return _CONFIGS[recipe.method](steps=recipe.steps, **recipe.options)


def _draw(key: PRNGKey, count: int, images: Array, *more: Array) -> tuple[Array, ...]:
    """`count` rows drawn with replacement; the images as float32 in [0, 1]."""
    rows = jax.random.randint(key, (count,), 0, images.shape[0])
    return (data.to_unit(images[rows]), *(array[rows] for array in more))


def _file_name(name: str) -> str:
    return name.replace("/", "_").replace("-", "_")
