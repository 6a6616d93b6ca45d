"""SeqGAN: a language model trained by policy gradients against a discriminator.

A token's value is what the discriminator thinks of sequences that go on from it (Yu, Zhang,
Wang & Yu 2017, Eq. 4): for t < T the mean of D over N completions by a roll-out policy, at T
the score of the sequence itself. The generator's gradient is (their Eq. 8)

    grad J = E sum_t Q(y_<t, y_t) grad log p(y_t | y_<t).

Both start from maximum likelihood. As in the authors' code the roll-out policy is a running
average of the generator (weight 0.8) and D's last layer has an L2 penalty of 0.2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.models.text.language_models import LanguageModel, TextCNN
from jaxgen.train.loop import Step

__all__ = [
    "AdversarialState",
    "LikelihoodState",
    "SeqGANConfig",
    "action_values",
    "begin_adversarial",
    "begin_likelihood",
    "discriminate_step",
    "likelihood_step",
    "negative_log_likelihood",
    "policy_loss",
    "policy_step",
    "round_step",
]


class SeqGANConfig(NamedTuple):
    """Hyper-parameters of the authors' code.

    Attributes:
      batch, length: B sequences of T tokens.
      rollouts: N for each prefix.
      lr, clip: of the generator's Adam, and its gradient's largest norm.
      lr_reader, penalty: of the discriminator's.
      memory: of the roll-out policy; 0 follows the generator at once, as in the paper.
    """

    batch: int = 64
    length: int = 20
    rollouts: int = 16
    lr: float = 0.01
    clip: float = 5.0
    lr_reader: float = 1e-4
    penalty: float = 0.2
    memory: float = 0.8


class LikelihoodState(NamedTuple):
    """The state of pre-training: parameters of the language model, and the optimiser's state."""

    writer: ArrayTree
    optimiser: optax.OptState


class AdversarialState(NamedTuple):
    """The state of adversarial training.

    Attributes:
      writer, reader: parameters; opt_writer, opt_reader: their optimisers' states.
      policy: the roll-out policy's parameters.
    """

    writer: ArrayTree
    reader: ArrayTree
    policy: ArrayTree
    opt_writer: optax.OptState
    opt_reader: optax.OptState


def begin_likelihood(writer: LanguageModel, config: SeqGANConfig) -> LikelihoodState:
    """Return the state before the first update."""
    params = jax.tree.map(jnp.array, nnx.split(writer)[1])
    return LikelihoodState(params, _writer_optimiser(config).init(params))


def begin_adversarial(writer: ArrayTree, reader: TextCNN, config: SeqGANConfig) -> AdversarialState:
    """From a pre-trained writer's parameters and a fresh reader."""
    params = jax.tree.map(jnp.array, nnx.split(reader)[1])
    return AdversarialState(
        jax.tree.map(jnp.array, writer),
        params,
        jax.tree.map(jnp.array, writer),
        _writer_optimiser(config).init(writer),
        _reader_optimiser(config).init(params),
    )


def likelihood_step(writer: LanguageModel, config: SeqGANConfig) -> Step:
    """One update by maximum likelihood on tokens `[B, T]`."""
    graph, optimiser = nnx.split(writer)[0], _writer_optimiser(config)

    def step(
        state: LikelihoodState, tokens: Array, key: PRNGKey
    ) -> tuple[LikelihoodState, dict[str, Array]]:
        loss, grads = jax.value_and_grad(
            lambda params: negative_log_likelihood(nnx.merge(graph, params), tokens)
        )(state.writer)
        updates, opt = optimiser.update(grads, state.optimiser)
        return LikelihoodState(optax.apply_updates(state.writer, updates), opt), {"nll": loss}

    return step  # type: ignore[return-value]


def discriminate_step(writer: LanguageModel, reader: TextCNN, config: SeqGANConfig) -> Step:
    """One update of the reader: real tokens `[B, T]` against as many of the writer's."""
    w_graph, r_graph = nnx.split(writer)[0], nnx.split(reader)[0]
    optimiser = _reader_optimiser(config)

    def step(
        state: AdversarialState, real: Array, key: PRNGKey
    ) -> tuple[AdversarialState, dict[str, Array]]:
        draw, drop = jax.random.split(key)
        fake = nnx.merge(w_graph, state.writer).sample(draw, *real.shape)

        def loss(params: ArrayTree) -> tuple[Array, Array]:
            network = nnx.merge(r_graph, params)
            logits = network(jnp.concatenate([real, fake]), drop)
            on_real, on_fake = jnp.split(logits, 2)
            value = jnp.mean(nnx.softplus(-on_real)) + jnp.mean(nnx.softplus(on_fake))
            right = 0.5 * (jnp.mean(on_real > 0) + jnp.mean(on_fake < 0))
            last = sum(jnp.sum(w**2) for w in jax.tree.leaves(nnx.state(network.out)))
            return 0.5 * (value + config.penalty * last), right

        (value, right), grads = jax.value_and_grad(loss, has_aux=True)(state.reader)
        updates, opt = optimiser.update(grads, state.opt_reader)
        reader = optax.apply_updates(state.reader, updates)
        new = state._replace(reader=reader, opt_reader=opt)
        return new, {"loss_d": value, "accuracy": right}

    return step  # type: ignore[return-value]


def policy_step(writer: LanguageModel, reader: TextCNN, config: SeqGANConfig) -> Step:
    """One policy-gradient update of the writer; its batch is ignored."""
    w_graph, r_graph = nnx.split(writer)[0], nnx.split(reader)[0]
    optimiser = _writer_optimiser(config)

    def step(
        state: AdversarialState, batch: object, key: PRNGKey
    ) -> tuple[AdversarialState, dict[str, Array]]:
        draw, roll = jax.random.split(key)
        tokens = nnx.merge(w_graph, state.writer).sample(draw, config.batch, config.length)
        score = nnx.merge(r_graph, state.reader)
        values = action_values(
            roll,
            nnx.merge(w_graph, state.policy),
            lambda x: nnx.sigmoid(score(x)),
            tokens,
            config.rollouts,
        )
        loss, grads = jax.value_and_grad(
            lambda params: policy_loss(nnx.merge(w_graph, params), tokens, values)
        )(state.writer)
        updates, opt = optimiser.update(grads, state.opt_writer)
        new = optax.apply_updates(state.writer, updates)
        policy = jax.tree.map(
            lambda old, w: config.memory * old + (1 - config.memory) * w, state.policy, new
        )
        state = state._replace(writer=new, policy=policy, opt_writer=opt)
        return state, {"loss_g": loss, "reward": jnp.mean(values[:, -1])}

    return step  # type: ignore[return-value]


def round_step(writer: LanguageModel, reader: TextCNN, config: SeqGANConfig) -> Step:
    """One round of the game: the writer's policy step, then the reader's updates.

    Its batch is real tokens `[K, B, T]`: an update of the reader for each of K batches.
    """
    act, learn = policy_step(writer, reader, config), discriminate_step(writer, reader, config)

    def step(
        state: AdversarialState, batches: Array, key: PRNGKey
    ) -> tuple[AdversarialState, dict[str, Array]]:
        keys = jax.random.split(key, len(batches) + 1)
        state, acted = act(state, None, keys[0])
        state, learned = jax.lax.scan(
            lambda state, given: learn(state, *given), state, (batches, keys[1:])
        )
        return state, {**acted, **jax.tree.map(jnp.mean, learned)}

    return step  # type: ignore[return-value]


def action_values(
    key: PRNGKey, policy: LanguageModel, score: Any, tokens: Array, rollouts: int
) -> Array:
    """Q of every token, `[B, T]`: see the module. The key is consumed.

    Args:
      key: consumed.
      policy: the roll-out policy.
      score: tokens `[N, T]` -> rewards `[N]`.
      tokens: `[B, T]`.
      rollouts: completions of each prefix.
    """
    count, length = tokens.shape
    copies = jnp.repeat(tokens[None], rollouts, axis=0).reshape(-1, length)

    def value(known: Array) -> Array:
        """Return the reward of the token at known - 1; one prefix length at a time, for memory."""
        full = policy.complete(jax.random.fold_in(key, known), copies, known)
        return jnp.mean(score(full).reshape(rollouts, count), axis=0)

    before = jax.lax.map(value, jnp.arange(1, length))
    return jnp.concatenate([before, score(tokens)[None]]).T


def policy_loss(writer: LanguageModel, tokens: Array, values: Array) -> Array:
    """-sum over tokens and sequences of Q log p: its gradient is REINFORCE's.

    The sum over the batch, as in the authors' code: their clipping of the norm counts on it.
    """
    return -jnp.sum(writer.log_probs(tokens) * jax.lax.stop_gradient(values))


def negative_log_likelihood(writer: LanguageModel, tokens: Array) -> Array:
    """Mean over sequences and tokens of -log p, in nats a token.

    Under the oracle, of a generator's sequences, it is SeqGAN's measure of the generator.
    """
    return -jnp.mean(writer.log_probs(tokens))


def _writer_optimiser(config: SeqGANConfig) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(config.lr))


def _reader_optimiser(config: SeqGANConfig) -> optax.GradientTransformation:
    return optax.adam(config.lr_reader)
