"""Recipes of what class-conditional sampling needs: realism, PPGN's generators
and priors, the captioner.

Each takes a job of `jaxgen.train.recipes` and yields the weight files that it wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgen import data
from jaxgen.models.autoencoders import CodeAutoencoder, ImageAutoencoder
from jaxgen.models.codes import Codes
from jaxgen.models.registry import load
from jaxgen.train import autoencoder, captions, figures, ppgn, realism
from jaxgen.types import Array, PRNGKey

__all__ = ["CONFIGS", "JOBS", "rows"]

_GENERATORS = ("fashion-mnist/dcgan", "fashion-mnist/vae", "fashion-mnist/vae-gaussian")
_POOL = 10_000
_CAPTIONED, _BATCH = 30_000, 100
_UNIT = "images [28, 28, 1] in [0, 1]; the network scales them itself"
_CODE = "h of fashion-mnist/cnn: its hidden layer after GELU"


def _realism(job: Any) -> Iterator[Path]:
    config = realism.RealismConfig(job.recipe.steps, **job.recipe.options)
    init_key, loop_key, pool_key = jax.random.split(jax.random.key(job.recipe.seed), 3)
    images = jnp.asarray(data.fashion_mnist("train", job.data_dir).images)
    drawn = jnp.concatenate(
        [_draws(name, jax.random.fold_in(pool_key, i), _POOL) for i, name in enumerate(_GENERATORS)]
    )

    def batcher(arrays: tuple[Array, Array], key: PRNGKey) -> tuple[Array, Array]:
        keys = jax.random.split(key)
        real, fake = (rows(k, config.batch // 2, a) for k, a in zip(keys, arrays, strict=True))
        return data.to_unit(real), fake

    state = job.loop(
        loop_key,
        realism.init(init_key, config),
        realism.make_step(config),
        batcher,
        (images, drawn),
        scan=False,
    )
    yield job.save(
        job.name,
        "dcgan.Discriminator",
        realism.finish(state, config),
        {"width": config.width},
        _UNIT,
        lambda path: _of_realism(path, job.data_dir),
        drawn_by=list(_GENERATORS),
    )


def _of_realism(path: Path, data_dir: str | None) -> dict[str, Any]:
    """Mean logits, and how often a real test image scores above a fresh draw."""
    network = load(path)
    test = data.to_unit(data.fashion_mnist("test", data_dir).images[:2000])
    real = np.asarray(figures.apply(network, test))
    measured: dict[str, Any] = {"mean_logit_test": round(float(real.mean()), 4)}
    for name in _GENERATORS:
        logits = figures.apply(network, _draws(name, jax.random.key(77), 2000))
        above = np.mean(real[:, None] > np.asarray(logits)[None, :])
        measured[name] = {
            "mean_logit_draws": round(float(jnp.mean(logits)), 4),
            "real_above_draw": round(float(above), 4),
        }
    return measured


def _ppgn(job: Any) -> Iterator[Path]:
    config = ppgn.PPGNConfig(job.recipe.steps, **job.recipe.options)
    init_key, loop_key = jax.random.split(jax.random.key(job.recipe.seed))
    images = jnp.asarray(data.fashion_mnist("train", job.data_dir).images)
    encoder = Codes.of(load("fashion-mnist/cnn"))
    codes = encoder.trained_with_xla()
    state = ppgn.init(init_key, config)
    if "start" in job.recipe.model:
        start = job.recipe.model["start"]
        fresh = job.out / f"{start.replace('/', '_').replace('-', '_')}.safetensors"
        begun = load(fresh if fresh.exists() else start)
        module = ppgn.begin_from(jax.random.fold_in(init_key, 1), begun, encoder, config)
        params = nnx.state(module)
        state = state._replace(generator=params, average=jax.tree.map(jnp.array, params))
    state = job.loop(
        loop_key,
        state,
        ppgn.make_step(config, codes, code_scales(encoder, images)),
        lambda arrays, key: data.to_unit(rows(key, config.batch, *arrays)),
        (images,),
        scan=False,
        chunk=50,
    )
    yield job.save(
        job.name,
        "dcgan.Generator",
        ppgn.finish(state, config),
        {"latent": config.code, "width": config.width},
        f"{_CODE}; images in [0, 1]",
        lambda path: _of_decoder(path, job.data_dir),
        encoder="fashion-mnist/cnn",
    )


def _of_decoder(path: Path, data_dir: str | None) -> dict[str, Any]:
    """How close test images and their codes come back."""
    generator, codes = load(path), Codes.of(load("fashion-mnist/cnn"))
    test = data.fashion_mnist("test", data_dir)
    x = data.to_unit(test.images[:2000])
    h = figures.apply(codes, x)  # type: ignore[arg-type]
    made = figures.apply(generator, h)
    back = figures.apply(codes, made)  # type: ignore[arg-type]
    judged = jnp.argmax(figures.apply(load("fashion-mnist/judge"), made), axis=1)
    return {
        "test_image_mse": round(float(jnp.mean((made - x) ** 2)), 5),
        "test_code_error": round(float(jnp.mean((back - h) ** 2) / jnp.mean(h**2)), 5),
        "judge_agrees": round(float(jnp.mean(judged == test.labels[:2000])), 4),
    }


def _captions(job: Any) -> Iterator[Path]:
    config = captions.CaptionsConfig(job.recipe.steps, **job.recipe.options)
    init_key, loop_key = jax.random.split(jax.random.key(job.recipe.seed))
    found = data.fashion_mnist("train", job.data_dir)
    images = data.to_unit(found.images[:_CAPTIONED])
    bounds = captions.thirds(np.asarray(images))
    tokens = jnp.asarray(captions.captions(np.asarray(images), found.labels[:_CAPTIONED], bounds))
    codes = Codes.of(load("fashion-mnist/cnn"))
    # Half precision, or they would fill as many bytes as all else together.
    h1 = jax.lax.map(lambda x: codes.spatial(x).astype(jnp.float16), images, batch_size=_BATCH)

    def batcher(arrays: tuple[Array, Array], key: PRNGKey) -> tuple[Array, Array]:
        chosen = jax.random.randint(key, (config.batch,), 0, _CAPTIONED)
        return arrays[0][chosen].astype(jnp.float32), arrays[1][chosen]

    state = job.loop(
        loop_key, captions.init(init_key, config), captions.make_step(config), batcher, (h1, tokens)
    )
    classifier = nnx.merge(codes.classifier.graphdef, codes.classifier.params)

    def measured(path: Path) -> dict[str, Any]:
        test = data.fashion_mnist("test", job.data_dir)
        x = data.to_unit(test.images[:2000])
        true = captions.captions(np.asarray(x), test.labels[:2000], bounds)
        said = np.asarray(figures.apply(load(path), x))
        return {
            "words_right": round(float(np.mean(said[true != 0] == true[true != 0])), 4),
            "captions_right": round(float(np.mean(np.all(said == true, axis=1))), 4),
        }

    yield job.save(
        job.name,
        "captioner.Captioner",
        captions.finish(state, config, classifier),
        {
            "words": list(captions.WORDS),
            "length": captions.LENGTH,
            "embedding": config.embedding,
            "hidden": config.hidden,
        },
        _UNIT,
        measured,
        encoder="fashion-mnist/cnn",
        thirds=bounds._asdict(),
    )


def _autoencoder(job: Any) -> Iterator[Path]:
    config = autoencoder.AutoencoderConfig(job.recipe.steps, **job.recipe.options)
    init_key, loop_key = jax.random.split(jax.random.key(job.recipe.seed))
    images = jnp.asarray(data.fashion_mnist("train", job.data_dir).images)
    clean, sigma, variance = images, config.noise, float(jnp.var(data.to_unit(images[:5000])))
    rngs = nnx.Rngs(init_key)
    if config.of == "codes":
        codes = Codes.of(load("fashion-mnist/cnn"))
        clean = figures.apply(codes, data.to_unit(images[:30_000]))  # type: ignore[arg-type]
        sigma *= float(jnp.mean(jnp.abs(clean)))
        variance = float(jnp.var(clean))
    module = CodeAutoencoder(rngs=rngs) if config.of == "codes" else ImageAutoencoder(rngs=rngs)
    name = type(module).__name__

    def batcher(arrays: tuple[Array], key: PRNGKey) -> Array:
        drawn = rows(key, config.batch, *arrays)
        return data.to_unit(drawn) if drawn.dtype == jnp.uint8 else drawn

    state = job.loop(
        loop_key,
        autoencoder.init(module, config),
        autoencoder.make_step(module, config, sigma, variance),
        batcher,
        (clean,),
        scan=config.of == "codes",  # no convolutions, which are slow in a compiled loop
    )
    nnx.update(module, state.average)

    def measured(path: Path) -> dict[str, Any]:
        x = clean[-2000:] if config.of == "codes" else data.to_unit(clean[-2000:])
        noise = sigma * jax.random.normal(jax.random.key(5), x.shape)
        error = jnp.mean((figures.apply(load(path), x + noise) - x) ** 2)
        return {"denoised_error_over_noise": round(float(error) / sigma**2, 4)}

    yield job.save(
        job.name,
        f"autoencoders.{name}",
        module,
        {},
        _CODE if config.of == "codes" else _UNIT,
        measured,
        sigma=sigma,
    )


def code_scales(codes: Codes, images: Array, count: int = 2000) -> ppgn.Scales:
    """Mean squares and mean magnitudes of images, h1 and h."""
    x = data.to_unit(images[:count])

    @jax.jit
    def spatial(codes: Codes, x: Array) -> Array:
        return jax.lax.map(codes.spatial, x, batch_size=100)

    h1 = spatial(codes, x)
    parts = (x, h1, codes.hidden(h1))
    return ppgn.Scales(
        tuple(float(jnp.mean(p**2)) for p in parts),  # type: ignore[arg-type]
        tuple(float(jnp.mean(jnp.abs(p))) for p in parts),  # type: ignore[arg-type]
    )


def _draws(name: str, key: PRNGKey, count: int) -> Array:
    generator = load(name)
    size = 64 if name.endswith("dcgan") else 20
    return figures.apply(generator, jax.random.normal(key, (count, size)))


def rows(key: PRNGKey, count: int, array: Array) -> Array:
    """`count` rows drawn with replacement."""
    return array[jax.random.randint(key, (count,), 0, array.shape[0])]


JOBS = {
    "realism": _realism,
    "ppgn": _ppgn,
    "autoencoder": _autoencoder,
    "captions": _captions,
}
CONFIGS = {
    "captions": captions.CaptionsConfig,
    "realism": realism.RealismConfig,
    "ppgn": ppgn.PPGNConfig,
    "autoencoder": autoencoder.AutoencoderConfig,
}
