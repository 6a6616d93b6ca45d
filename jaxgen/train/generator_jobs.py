"""Recipes of generators: of images by GAN, VAE, BEGAN and BGAN, and of points of the plane.

Each takes a `jaxgen.train.job.Job` and yields the weight files that it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from numpy.typing import ArrayLike

from jaxgen import data
from jaxgen.core.types import Array, ArrayTree
from jaxgen.metrics import frechet_distance
from jaxgen.models.fashion_mnist.dcgan import Discriminator
from jaxgen.models.fashion_mnist.vae import Decoder
from jaxgen.models.registry import load
from jaxgen.train import began, bgan, figures, gan, projected, toy, vae
from jaxgen.train.job import UNIT, Job, rows

__all__ = ["CONFIGS", "JOBS", "binary"]

_IMAGES = "images [28, 28, 1] in [0, 1]"
_NORMAL = "latent standard normal"
_RING = "five Gaussians on the unit circle, covariance 0.002 I, drawn afresh at every step"
_SNAPSHOTS = (500, 1_500, 2_500, 15_000)
_COUNT = 10_000


def _gan(job: Job) -> Iterator[Path]:
    config: gan.GANConfig = job.config
    init_key, loop_key = jax.random.split(jax.random.key(job.recipe.seed))
    images = jnp.asarray(data.fashion_mnist("train", job.data_dir).images)
    end_key = jax.random.fold_in(loop_key, config.steps)  # one step further than the loop's
    shape = {"latent": config.latent, "width": config.width}
    taken: list[Path] = []

    def save(name: str, generator: nnx.Module, **extra: object) -> Path:
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
        lambda images, key: data.to_unit(rows(key, config.critic_steps * config.batch, images)),
        images,
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
        UNIT,
        lambda path: figures.of_discriminator(path, job.weights(job.name), job.data_dir),
    )


def _projected(job: Job) -> Iterator[Path]:
    config: projected.ProjectedConfig = job.config
    init_key, loop_key = jax.random.split(jax.random.key(job.recipe.seed))
    images = jnp.asarray(data.fashion_mnist("train", job.data_dir).images)
    end_key = jax.random.fold_in(loop_key, config.steps)  # one step further than the loop's
    classifier = load("fashion-mnist/cnn")
    taken: list[Path] = []

    def save(name: str, state: Any, **extra: object) -> Path:
        return job.save(
            name,
            "residual.Generator",
            projected.finish(end_key, state, config),
            {"latent": config.latent, "width": config.width},
            f"{_NORMAL}; images in [0, 1]",
            lambda path: figures.of_generator(path, job.data_dir),
            classifier="fashion-mnist/cnn",
            **extra,
        )

    def snapshot(step: int, state: Any) -> None:
        if step in job.snapshots:
            taken.append(save(f"{job.name}-{step}", state, snapshot=step))

    state = job.loop(
        loop_key,
        projected.init(init_key, config),
        projected.make_step(config, nnx.merge(classifier.graphdef, classifier.params)),
        lambda images, key: data.to_unit(rows(key, config.batch, images)),
        images,
        scan=False,
        chunk=50,
        visit=snapshot,
        stops=job.snapshots,
    )
    yield from taken
    yield save(job.name, state)


def _vae(job: Job) -> Iterator[Path]:
    config: vae.VAEConfig = job.config
    init_key, loop_key = jax.random.split(jax.random.key(job.recipe.seed))
    images = jnp.asarray(data.fashion_mnist("train", job.data_dir).images)
    state = job.loop(
        loop_key,
        vae.init(init_key, config),
        vae.make_step(config),
        lambda images, key: data.to_unit(rows(key, config.batch, images)),
        images,
    )
    encoder, decoder = vae.finish(state, config)
    extra: dict[str, Any] = {"likelihood": config.likelihood}
    if decoder.log_sigma is not None:
        extra["sigma"] = float(jnp.exp(decoder.log_sigma[...]))
    yield job.save(
        f"{job.name}-encoder",
        "vae.Encoder",
        encoder,
        {"latent": config.latent},
        f"{UNIT}; gives [2, latent], mean and log variance",
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
            **figures.of_reconstruction(job.weights(f"{job.name}-encoder"), path, job.data_dir),
        },
        **extra,
    )


def _toy(job: Job) -> Iterator[Path]:
    config: toy.ToyConfig = job.config
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
                data=_RING,
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


def binary(images: ArrayLike) -> Array:
    """Bytes 0..255 to 0.0 and 1.0: a pixel is on from 128."""
    return jnp.asarray(jnp.asarray(images) >= 128, jnp.float32)


def _began(job: Job) -> Iterator[Path]:
    config: began.BEGANConfig = job.config
    init_key, loop_key = jax.random.split(jax.random.key(job.recipe.seed))
    images = jnp.asarray(data.fashion_mnist("train", job.data_dir).images)
    shape = {"latent": config.latent, "width": config.width, "skips": config.skips}
    taken: list[Path] = []

    def save(name: str, state: began.BEGANState, **extra: object) -> Path:
        return job.save(
            name,
            "began.Generator",
            began.finish(state, config)[0],
            shape,
            "latent u standard normal, made uniform on [-1, 1] by 2 Phi(u) - 1; images in [0, 1]",
            lambda path: figures.of_generator(path, job.data_dir),
            history=began.history(state, config),
            **extra,
        )

    def snapshot(step: int, state: Any) -> None:
        if step in job.snapshots:
            taken.append(save(f"{job.name}-{step}", state, snapshot=step))

    state = job.loop(
        loop_key,
        began.init(init_key, config),
        began.make_step(config, "xla", _scaled_maps(images) if config.features else None),
        lambda images, key: data.to_unit(rows(key, config.batch, images)),
        images,
        scan=False,
        chunk=50,
        visit=snapshot,
        stops=job.snapshots,
    )
    yield from taken
    path = save(job.name, state)
    yield path

    def measured(own: Path) -> dict[str, Any]:
        network = load(own)
        test = data.to_unit(data.fashion_mnist("test", job.data_dir).images[:2000])
        noise = jax.random.normal(jax.random.key(77), (2000, config.latent))
        losses = {"test": test, "draws": figures.apply(load(path), noise)}
        return {
            f"mean_loss_{name}": round(
                float(jnp.mean(jnp.abs(x - figures.apply(network, x)) ** config.eta)), 5
            )
            for name, x in losses.items()
        }

    yield job.save(
        f"{job.name}-discriminator",
        "began.Autoencoder",
        began.finish(state, config)[1],
        shape,
        _IMAGES,
        measured,
    )


def _scaled_maps(images: Array, count: int = 2000) -> Callable[[Array], tuple[Array, ...]]:
    """Return what the shipped classifier makes of images, each map over its mean magnitude."""
    network = load("fashion-mnist/cnn")
    classifier = nnx.merge(network.graphdef, network.params)
    scales = [
        float(jnp.mean(jnp.abs(h))) for h in jax.jit(classifier.maps)(data.to_unit(images[:count]))
    ]
    return lambda x: tuple(h / scale for h, scale in zip(classifier.maps(x), scales, strict=True))


def _bgan(job: Job) -> Iterator[Path]:
    config: bgan.BGANConfig = job.config
    keys = jax.random.split(jax.random.key(job.recipe.seed), 3)
    images = jnp.asarray(data.fashion_mnist("train", job.data_dir).images)
    width = job.recipe.model["width"]
    generator = Decoder(config.latent, rngs=nnx.Rngs(keys[0]))
    discriminator = Discriminator(width, rngs=nnx.Rngs(keys[1]))
    state = job.loop(
        keys[2],
        bgan.init(generator, discriminator, config),
        bgan.make_step(generator, discriminator, bgan.bernoulli_images, config),
        lambda images, key: binary(rows(key, config.batch, images)),
        images,
        chunk=50,
    )
    nnx.update(generator, state.generator)
    nnx.update(discriminator, state.discriminator)
    path = job.save(
        job.name,
        "vae.Decoder",
        generator,
        {"latent": config.latent},
        "latent standard normal; gives every pixel's probability of being on, from 128 of 255",
        lambda path: _of_binary(path, config.latent, job.data_dir),
        likelihood="bernoulli",
    )
    yield path
    yield job.save(
        f"{job.name}-discriminator",
        "dcgan.Discriminator",
        discriminator,
        {"width": width},
        "binary images [28, 28, 1]; the network scales them itself",
        lambda own: {},
        log_z=float(state.log_z),
        baseline=float(state.baseline),
    )


def _of_binary(path: Path, latent: int, data_dir: str | None) -> dict[str, Any]:
    """Measure the distance of binary draws from binarised test images, in the judge's features.

    The judge was trained on grey images, so this Frechet distance is one of its own kind;
    beside it stands that of binarised training images, the floor.
    """
    z_key, x_key = jax.random.split(jax.random.key(1))
    p = figures.apply(load(path), jax.random.normal(z_key, (_COUNT, latent)))
    draws = jax.random.bernoulli(x_key, p).astype(jnp.float32)
    features = load("fashion-mnist/judge").at("features")
    train = data.fashion_mnist("train", data_dir).images[:_COUNT]
    real, floor, found = (
        figures.apply(features, images)
        for images in (binary(data.fashion_mnist("test", data_dir).images), binary(train), draws)
    )
    return {
        "draws": _COUNT,
        "frechet_judge_features_binary": round(float(frechet_distance(found, real)), 5),
        "frechet_judge_features_binary_train": round(float(frechet_distance(floor, real)), 5),
        "share_of_pixels_on": round(float(jnp.mean(draws)), 5),
        "share_of_pixels_on_train": round(float(jnp.mean(binary(train))), 5),
    }


JOBS = {
    "gan": _gan,
    "projected": _projected,
    "vae": _vae,
    "toy": _toy,
    "began": _began,
    "bgan": _bgan,
}
CONFIGS = {
    "gan": gan.GANConfig,
    "projected": projected.ProjectedConfig,
    "vae": vae.VAEConfig,
    "toy": toy.ToyConfig,
    "began": began.BEGANConfig,
    "bgan": bgan.BGANConfig,
}
