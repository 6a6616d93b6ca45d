"""Recipes of networks that write text, and of networks that fill its blanks.

Both are trained by maximum likelihood until the loss on sentences kept for that no longer
falls, and with a share of the updates for the game against a judge: first of the judge alone,
then rounds of SeqGAN or MaskGAN. Of a text (`jaxgen.sequences.text`) every fifth sentence is held
out for the figures; of the others every twentieth decides when likelihood training stops.

Each takes a `jaxgen.train.job.Job` and yields the weight files that it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgen.core.errors import expected
from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.models.registry import SEQUENCE, load
from jaxgen.models.text.infillers import FilledReader, Infiller
from jaxgen.models.text.language_models import ORACLE_FILTERS, LanguageModel, TextCNN
from jaxgen.sequences import maskgan, seqgan, text
from jaxgen.sequences.configs import InfillerConfig, TextConfig, WriterConfig
from jaxgen.sequences.corpus import Corpus, corpus, vocabulary
from jaxgen.target.networks import Network
from jaxgen.train.job import Job, rows
from jaxgen.train.loop import EarlyStop

__all__ = ["CONFIGS", "JOBS", "Corpus", "InfillerConfig", "WriterConfig", "corpus", "vocabulary"]

_MEASURED = 2_000
_WATCHED = 500


def _corpus(job: Job, config: TextConfig) -> Corpus:
    if job.text is None:
        raise expected("text", "a file with a sentence on each line", "none")
    return corpus(job.text, config.vocabulary)


def _likelihood(
    job: Job,
    config: TextConfig,
    key: PRNGKey,
    state: ArrayTree,
    step: object,
    found: Corpus,
    loss: Callable[[Any, Array], Array],
) -> Any:
    """By maximum likelihood until `loss(state, tokens)` of the watched part falls no more."""
    watched = jnp.asarray(found.watched[:_WATCHED])
    measure = jax.jit(loss)
    return job.loop(
        key,
        state,
        step,
        lambda data, key: rows(key, config.batch, data),
        jnp.asarray(found.learned),
        stage="likelihood",
        steps=config.stages.likelihood,
        mark=found.mark,
        early=EarlyStop(lambda state: measure(state, watched), config.every, config.patience),
    )


def _batches(count: int, batch: int) -> Any:
    """Return a batcher of `[count, batch, T]`."""
    return lambda data, key: rows(key, count * batch, data).reshape(count, batch, -1)


def _save(
    job: Job,
    name: str,
    module: nnx.Module,
    config: TextConfig,
    found: Corpus,
    measured: Callable[[Network], dict[str, float]],
) -> Path:
    kind = "sequences.Writer" if isinstance(module, LanguageModel) else "infillers.Infiller"
    given = (
        "" if isinstance(module, LanguageModel) else "; true where one is given, false at blanks"
    )
    size = {
        "vocabulary": len(found.words.words),
        "embedding": config.embedding,
        "hidden": config.hidden,
    }
    return job.save(
        name,
        kind,
        module,
        size,
        f"tokens [..., {SEQUENCE}], numbers of words{given}",
        lambda path: measured(load(path)),
        data=found.about,
        licence="not stated",
        words=list(found.words.words),
    )


def _writer(job: Job) -> Iterator[Path]:
    config: WriterConfig = job.config
    found, stages = _corpus(job, config), config.stages
    keys = jax.random.split(jax.random.key(job.recipe.seed), 5)
    game = seqgan.SeqGANConfig(
        batch=config.batch,
        length=SEQUENCE,
        rollouts=config.rollouts,
        lr=config.lr,
        lr_reader=config.lr_reader,
    )
    size = len(found.words.words)
    writer = LanguageModel(size, config.embedding, config.hidden, rngs=nnx.Rngs(keys[0]))
    graph = nnx.split(writer)[0]

    def save(name: str, params: ArrayTree) -> Path:
        module = nnx.merge(graph, params)
        return _save(job, name, module, config, found, lambda net: _of_writer(net, found))

    params = _likelihood(
        job,
        config,
        keys[1],
        seqgan.begin_likelihood(writer, game),
        seqgan.likelihood_step(writer, game),
        found,
        lambda state, tokens: seqgan.negative_log_likelihood(
            nnx.merge(graph, state.writer), tokens
        ),
    ).writer
    if not stages.game:
        yield save(job.name, params)
        return
    yield save(f"{job.name}-likelihood", params)
    filters = [(width, n // config.narrow) for width, n in ORACLE_FILTERS if n >= config.narrow]
    reader = TextCNN(size, filters=filters, rngs=nnx.Rngs(keys[2]))
    data = jnp.asarray(found.learned)
    state = job.loop(
        keys[3],
        seqgan.begin_adversarial(params, reader, game),
        seqgan.discriminate_step(writer, reader, game),
        lambda data, key: rows(key, config.batch, data),
        data,
        stage="judge",
        first=stages.likelihood,
        steps=stages.judge,
        mark=found.mark,
    )
    state = job.loop(
        keys[4],
        state,
        seqgan.round_step(writer, reader, game),
        _batches(config.reader_steps, config.batch),
        data,
        stage="game",
        first=stages.likelihood + stages.judge,
        steps=stages.game,
        mark=found.mark,
        chunk=5,
        every=1,
    )
    yield save(job.name, state.writer)


def _infiller(job: Job) -> Iterator[Path]:
    config: InfillerConfig = job.config
    found, stages = _corpus(job, config), config.stages
    keys = jax.random.split(jax.random.key(job.recipe.seed), 6)
    game = maskgan.MaskGANConfig(
        lr_likelihood=config.lr_likelihood,
        lr=config.lr,
        lr_discriminator=config.lr_discriminator,
        lr_critic=config.lr_critic,
    )
    count = len(found.words.words)
    infiller = Infiller(count, config.embedding, config.hidden, rngs=nnx.Rngs(keys[0]))
    graph = nnx.split(infiller)[0]

    def save(name: str, params: ArrayTree) -> Path:
        module = nnx.merge(graph, params)
        return _save(job, name, module, config, found, lambda net: _of_infiller(net, found, game))

    def loss(state: maskgan.LikelihoodState, tokens: Array) -> Array:
        present = maskgan.draw_mask(jax.random.key(0), tokens.shape, game)
        network = nnx.merge(graph, state.infiller)
        return maskgan.negative_log_likelihood(network, tokens, present)

    params = _likelihood(
        job,
        config,
        keys[1],
        maskgan.begin_likelihood(infiller, game),
        maskgan.likelihood_step(infiller, game),
        found,
        loss,
    ).infiller
    if not stages.game:
        yield save(job.name, params)
        return
    yield save(f"{job.name}-likelihood", params)
    discriminator, critic = (
        FilledReader(count, config.embedding, config.hidden, critic=critic, rngs=nnx.Rngs(key))
        for critic, key in ((False, keys[2]), (True, keys[3]))
    )
    for network in (discriminator, critic):
        network.begin_from(nnx.merge(graph, params))
    state = maskgan.begin_adversarial(params, discriminator, critic, game)
    first = stages.likelihood
    for stage, steps, key in (("judge", stages.judge, keys[4]), ("game", stages.game, keys[5])):
        state = job.loop(
            key,
            state,
            maskgan.round_step(infiller, discriminator, critic, game, hold=stage == "judge"),
            _batches(config.reads + 1, config.batch),
            jnp.asarray(found.learned),
            stage=stage,
            first=first,
            steps=steps,
            mark=found.mark,
            chunk=50,
        )
        first += steps
    yield save(job.name, state.infiller)


def _of_writer(network: Network, found: Corpus) -> dict[str, float]:
    """Measure held-out windows: nats per token, perplexity, BLEU-2 of drawn ones."""

    @jax.jit
    def measure(network: Network, tokens: Array) -> tuple[Array, Array]:
        log_p = jax.lax.map(lambda x: network.call("log_probs", x), tokens, batch_size=100)
        return -jnp.mean(log_p), network.call("sample", jax.random.key(1), _MEASURED, SEQUENCE)

    nll, drawn = measure(network, jnp.asarray(found.held_out))
    return _figures(nll, text.bleu(np.asarray(drawn), found.held_out))


def _of_infiller(
    network: Network, found: Corpus, config: maskgan.MaskGANConfig
) -> dict[str, float]:
    """Measure blanks in held-out windows: nats per token, perplexity, and BLEU-2 of the filling.

    The references are all runs of that length which the held-out part is cut into.
    """
    tokens = jnp.asarray(found.held_out[:_MEASURED])
    present = maskgan.draw_mask(jax.random.key(1), tokens.shape, config)

    @jax.jit
    def measure(network: Network) -> tuple[Array, Array]:
        log_p = jax.lax.map(
            lambda row: network.call("log_probs", *(x[None] for x in row))[0],
            (tokens, present),
            batch_size=100,
        )
        return -jnp.sum(log_p) / jnp.sum(~present), network.call(
            "fill", jax.random.key(2), tokens, present
        )

    nll, filled = measure(network)
    blanks = ~np.asarray(present)
    filled = np.asarray(filled)[blanks].reshape(len(blanks), -1)
    references = text.windows(found.held_out.ravel(), filled.shape[1])
    return _figures(nll, text.bleu(filled, references))


def _figures(nll: Array, bleu: float) -> dict[str, float]:
    return {
        "nll": round(float(nll), 4),
        "perplexity": round(float(jnp.exp(nll)), 2),
        "bleu2": round(bleu, 4),
    }


JOBS = {"seqgan": _writer, "maskgan": _infiller}
CONFIGS = {"seqgan": WriterConfig, "maskgan": InfillerConfig}
