"""Recipes of what conditional sampling needs: classifiers, realism, PPGN's generators and
priors, the captioner.

Each takes a `jaxgen.train.job.Job` and yields the weight files that it wrote.
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
from jaxgen.core.types import Array, PRNGKey
from jaxgen.models.conv.layers import Conv
from jaxgen.models.fashion_mnist import cnn, judge
from jaxgen.models.fashion_mnist.autoencoders import CodeAutoencoder, ImageAutoencoder
from jaxgen.models.fashion_mnist.codes import Codes
from jaxgen.models.registry import load
from jaxgen.target.networks import freeze
from jaxgen.train import autoencoder, captions, classifier, figures, ppgn, realism, rejecting
from jaxgen.train.classifier import ClassifierConfig
from jaxgen.train.job import UNIT, Job, rows

__all__ = ["CONFIGS", "JOBS"]

_GENERATORS = ("fashion-mnist/dcgan", "fashion-mnist/vae", "fashion-mnist/vae-gaussian")
_POOL = 10_000
_CAPTIONED, _BATCH = 30_000, 100
_CODE = "h of fashion-mnist/cnn: its hidden layer after GELU"


def _classifier(job: Job) -> Iterator[Path]:
    config: classifier.ClassifierConfig = job.config
    train = data.fashion_mnist("train", job.data_dir)
    make = {"cnn.Classifier": cnn.Classifier, "judge.Judge": judge.Judge}
    options = dict(job.recipe.model)
    network = options.pop("network")
    model = make[network](**options, dropout=config.dropout, rngs=nnx.Rngs(job.recipe.seed))
    for _, layer in nnx.iter_graph(model):
        if isinstance(layer, Conv):
            layer.form = "xla"  # the faster one in training, outside a compiled loop

    def batcher(arrays: tuple[Array, Array], key: PRNGKey) -> tuple[Array, Array]:
        images, labels = rows(key, config.batch, arrays)
        return data.to_unit(images), labels

    state = job.loop(
        jax.random.key(job.recipe.seed),
        classifier.init(model, config),
        classifier.make_step(model, config),
        batcher,
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
        UNIT,
        lambda path: figures.of_classifier(path, job.data_dir),
        classes=list(data.CLASS_NAMES),
    )


def _rejecting(job: Job) -> Iterator[Path]:
    config: rejecting.RejectingConfig = job.config
    loop_key, pool_key = jax.random.split(jax.random.key(job.recipe.seed))
    train = data.fashion_mnist("train", job.data_dir)
    images, labels = jnp.asarray(train.images), jnp.asarray(train.labels)
    kept, seen = slice(-config.held_out, None), slice(-config.held_out)
    drawer = job.recipe.model["draws"]
    fresh = job.weights(drawer)
    generator, coder = load(fresh if fresh.exists() else drawer), load("fashion-mnist/cnn")
    draws = figures.apply(generator, jax.random.normal(pool_key, (config.pool, 64)))

    def code(x: Array) -> Array:
        return figures.apply(coder.at("hidden"), x)

    known = code(data.to_unit(images[seen]))
    usual = rejecting.distances(code(data.to_unit(images[kept])), known)
    far = rejecting.distances(code(draws), known) > jnp.quantile(usual, config.quantile)
    failures = draws[far]
    none, total = round(config.none * config.batch), len(data.CLASS_NAMES)

    def batcher(arrays: tuple[Array, Array, Array], key: PRNGKey) -> tuple[Array, Array]:
        first, second = jax.random.split(key)
        garments, classes = rows(first, config.batch - none, arrays[:2])
        failed = rows(second, none, arrays[2])
        return (
            jnp.concatenate([data.to_unit(garments), failed]),
            jnp.concatenate([classes, jnp.full(none, total, classes.dtype)]),
        )

    options = {"classes": total + 1}
    model = cnn.Classifier(**options, dropout=config.dropout, rngs=nnx.Rngs(job.recipe.seed))
    for _, layer in nnx.iter_graph(model):
        if isinstance(layer, Conv):
            layer.form = "xla"  # the faster one in training, outside a compiled loop
    settings = {k: v for k, v in config._asdict().items() if k in ClassifierConfig._fields}
    settings["label_smoothing"] = 0.0
    state = job.loop(
        loop_key,
        classifier.init(model, ClassifierConfig(**settings)),
        classifier.make_step(model, ClassifierConfig(**settings)),
        batcher,
        (images[seen], labels[seen], failures),
        scan=False,
    )
    final = cnn.Classifier(**options, rngs=nnx.Rngs(0))
    nnx.update(final, state.average)
    logits = figures.apply(freeze(final), data.to_unit(images[kept]))
    temperature = rejecting.fitted_temperature(logits, labels[kept])
    yield job.save(
        job.name,
        "cnn.Classifier",
        rejecting.with_temperature(final, temperature),
        options,
        UNIT,
        lambda path: {
            **figures.of_classifier(path, job.data_dir),
            **figures.of_agreement(path, fresh if fresh.exists() else drawer, job.data_dir),
        },
        classes=[*data.CLASS_NAMES, data.NONE_OF_THESE],
        temperature=float(temperature),
        drawn_by=drawer,
        failures=f"{float(jnp.mean(far)):.4f} of the draws",
    )


def _realism(job: Job) -> Iterator[Path]:
    config: realism.RealismConfig = job.config
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
        UNIT,
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


def _ppgn(job: Job) -> Iterator[Path]:
    config: ppgn.PPGNConfig = job.config
    init_key, loop_key = jax.random.split(jax.random.key(job.recipe.seed))
    images = jnp.asarray(data.fashion_mnist("train", job.data_dir).images)
    encoder = Codes.of(load("fashion-mnist/cnn"))
    codes = encoder.trained_with_xla()
    state = ppgn.init(init_key, config)
    if "start" in job.recipe.model:
        start = job.recipe.model["start"]
        fresh = job.weights(start)
        begun = load(fresh if fresh.exists() else start)
        module = ppgn.begin_from(jax.random.fold_in(init_key, 1), begun, encoder, config)
        params = nnx.state(module)
        state = state._replace(generator=params, average=jax.tree.map(jnp.array, params))
    state = job.loop(
        loop_key,
        state,
        ppgn.make_step(config, codes, code_scales(encoder, images)),
        lambda images, key: data.to_unit(rows(key, config.batch, images)),
        images,
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
    """Measure how well test images and their codes are reconstructed."""
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


def _captions(job: Job) -> Iterator[Path]:
    config: captions.CaptionsConfig = job.config
    init_key, loop_key = jax.random.split(jax.random.key(job.recipe.seed))
    found = data.fashion_mnist("train", job.data_dir)
    images = data.to_unit(found.images[:_CAPTIONED])
    bounds = captions.thirds(np.asarray(images))
    tokens = jnp.asarray(captions.captions(np.asarray(images), found.labels[:_CAPTIONED], bounds))
    codes = Codes.of(load("fashion-mnist/cnn"))
    # Half precision, or they would fill as many bytes as all else together.
    h1 = jax.lax.map(lambda x: codes.spatial(x).astype(jnp.float16), images, batch_size=_BATCH)

    def batcher(arrays: tuple[Array, Array], key: PRNGKey) -> tuple[Array, Array]:
        h1, tokens = rows(key, config.batch, arrays)
        return h1.astype(jnp.float32), tokens

    state = job.loop(
        loop_key, captions.init(init_key, config), captions.make_step(config), batcher, (h1, tokens)
    )
    encoder = nnx.merge(codes.classifier.graphdef, codes.classifier.params)

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
        captions.finish(state, config, encoder),
        {
            "words": list(captions.WORDS),
            "length": captions.LENGTH,
            "embedding": config.embedding,
            "hidden": config.hidden,
        },
        UNIT,
        measured,
        encoder="fashion-mnist/cnn",
        thirds=bounds._asdict(),
    )


def _autoencoder(job: Job) -> Iterator[Path]:
    config: autoencoder.AutoencoderConfig = job.config
    init_key, loop_key = jax.random.split(jax.random.key(job.recipe.seed))
    images = jnp.asarray(data.fashion_mnist("train", job.data_dir).images)
    clean, sigma, variance = images, config.noise, float(jnp.var(data.to_unit(images[:5000])))
    rngs = nnx.Rngs(init_key)
    codes = Codes.of(load("fashion-mnist/cnn")) if config.of == "codes" else None
    if codes is not None:
        clean = figures.apply(codes, data.to_unit(images[:30_000]))  # type: ignore[arg-type]
        sigma *= float(jnp.mean(jnp.abs(clean)))
        variance = float(jnp.var(clean))
        module = CodeAutoencoder(rngs=rngs)
        module.fit(clean, sigma)
    else:
        module = ImageAutoencoder(rngs=rngs)
    name = type(module).__name__

    def batcher(clean: Array, key: PRNGKey) -> Array:
        drawn = rows(key, config.batch, clean)
        return data.to_unit(drawn) if drawn.dtype == jnp.uint8 else drawn

    state = job.loop(
        loop_key,
        autoencoder.init(module, config),
        autoencoder.make_step(module, config, sigma, variance),
        batcher,
        clean,
        scan=config.of == "codes",  # no convolutions, which are slow in a compiled loop
    )
    nnx.update(module, state.average)

    def measured(path: Path) -> dict[str, Any]:
        x = data.to_unit(data.fashion_mnist("test", job.data_dir).images[:2000])
        if codes is not None:
            x = figures.apply(codes, x)  # type: ignore[arg-type]
        noise = sigma * jax.random.normal(jax.random.key(5), x.shape)
        error = jnp.mean((figures.apply(load(path), x + noise) - x) ** 2)
        return {"denoised_error_over_noise": round(float(error) / sigma**2, 4)}

    yield job.save(
        job.name,
        f"autoencoders.{name}",
        module,
        {},
        _CODE if config.of == "codes" else UNIT,
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


JOBS = {
    "classifier": _classifier,
    "realism": _realism,
    "rejecting": _rejecting,
    "ppgn": _ppgn,
    "autoencoder": _autoencoder,
    "captions": _captions,
}
CONFIGS = {
    "classifier": classifier.ClassifierConfig,
    "realism": realism.RealismConfig,
    "rejecting": rejecting.RejectingConfig,
    "ppgn": ppgn.PPGNConfig,
    "autoencoder": autoencoder.AutoencoderConfig,
    "captions": captions.CaptionsConfig,
}
