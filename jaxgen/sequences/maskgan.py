"""MaskGAN: blanks in text filled by an actor, judged token by token, with a critic's baseline.

A discriminator sees the filled sequence x~ and where its blanks were (Fedus, Goodfellow & Dai
2018, Section 3); its opinion of each filled token is that token's reward,

    r_t = log D(x~_t | x~_<=t, m(x)) at a blank, 0 at a given token,
    R_t = sum_{s >= t} g^(s-t) r_s,

and the infiller G climbs by REINFORCE with a critic b_t, which knows what came before t only:

    sum over blanks of E (R_t - b_t) grad log G(x~_t | x~_<t, m(x)).

For discount g = 1 this is the gradient of E sum_t r_t with D held. For g < 1 it is the usual
discounted estimator: the sum over t of the gradients of E R_t by the choice at t alone, which
is not the gradient of any one objective. The discriminator tells real from filled tokens at
the blanks, by cross entropy, and the critic is regressed on R_t by squared error, there too.
All of it begins with an infiller from maximum likelihood.

Unlike the authors' program: one layer, no dropout, a critic of its own instead of another
head of the discriminator, and no language model's weights to begin from.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxgen.core.errors import expected
from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.models.text.infillers import FilledReader, Infiller
from jaxgen.train.loop import Step

__all__ = [
    "MASKS",
    "AdversarialState",
    "LikelihoodState",
    "MaskGANConfig",
    "begin_adversarial",
    "begin_likelihood",
    "discriminate_step",
    "draw_mask",
    "likelihood_step",
    "negative_log_likelihood",
    "policy_loss",
    "policy_step",
    "returns",
    "rewards",
    "round_step",
]

MASKS = ("contiguous", "random")


class MaskGANConfig(NamedTuple):
    """Hyper-parameters: the authors' for the Penn Treebank, with networks of 650 units.

    Attributes:
      present: the rate of given tokens.
      mask: "contiguous", one run of blanks at a random place, or "random", blanks anywhere.
      discount: g of the returns.
      lr_likelihood: of the infiller's Adam in pre-training (ours: theirs fall by a schedule).
      lr, lr_discriminator, lr_critic: of the three Adams after it.
      clip: the infiller's and the discriminator's largest gradient norm.
      most: advantages are cut off at plus and minus this.
    """

    present: float = 0.5
    mask: str = "contiguous"
    discount: float = 0.89072
    lr_likelihood: float = 3e-3
    lr: float = 3.9e-5
    lr_discriminator: float = 5e-4
    lr_critic: float = 5.2e-7
    clip: float = 10.0
    most: float = 5.0


class LikelihoodState(NamedTuple):
    """The state of pre-training: the infiller's parameters and their optimiser's state."""

    infiller: ArrayTree
    optimiser: optax.OptState


class AdversarialState(NamedTuple):
    """The state of adversarial training: parameters and optimisers of three networks."""

    infiller: ArrayTree
    discriminator: ArrayTree
    critic: ArrayTree
    opt_infiller: optax.OptState
    opt_discriminator: optax.OptState
    opt_critic: optax.OptState


def draw_mask(key: PRNGKey, shape: tuple[int, ...], config: MaskGANConfig) -> Array:
    """Which tokens are given, booleans of a shape `[B, T]`; the key is consumed.

    Every row has `round(present * length)` of them, but at least one blank.

    Raises:
      InputError: for a rate outside 0 <= present < 1, or an unknown kind of mask.
    """
    if not 0 <= config.present < 1:
        raise expected("present", "a rate of at least 0 and less than 1", config.present)
    count, length = shape
    blanks = max(1, length - round(config.present * length))
    if config.mask == "contiguous":
        start = jax.random.randint(key, (count, 1), 0, length - blanks + 1)
        place = jnp.arange(length)[None] - start
        return (place < 0) | (place >= blanks)
    if config.mask == "random":
        row = jnp.arange(length) >= blanks
        return jax.random.permutation(
            key, jnp.broadcast_to(row, (count, length)), axis=1, independent=True
        )
    raise expected("mask", " or ".join(MASKS), config.mask)


def returns(rewards: Array, discount: float) -> Array:
    """R_t = sum_{s >= t} discount^(s-t) r_s, of rewards `[B, T]`."""

    def step(later: Array, reward: Array) -> tuple[Array, Array]:
        total = reward + discount * later
        return total, total

    _, found = jax.lax.scan(step, jnp.zeros_like(rewards[:, 0]), rewards.T, reverse=True)
    return found.T


def rewards(discriminator: FilledReader, filled: Array, present: Array) -> Array:
    """r_t `[B, T]`: log D of each filled token, 0 at given ones; see the module."""
    return jnp.where(present, 0.0, nnx.log_sigmoid(discriminator(filled, present)))


def policy_loss(infiller: Infiller, filled: Array, present: Array, advantages: Array) -> Array:
    """-sum over blanks of A_t log G, a mean over sequences: its gradient is REINFORCE's."""
    log_p = infiller.log_probs(filled, present)  # 0 at given tokens
    return -jnp.mean(jnp.sum(log_p * jax.lax.stop_gradient(advantages), axis=1))


def negative_log_likelihood(infiller: Infiller, tokens: Array, present: Array) -> Array:
    """Mean of -log p over the blanks, in nats a token."""
    return -_mean_at(infiller.log_probs(tokens, present), ~present)


def begin_likelihood(infiller: Infiller, config: MaskGANConfig) -> LikelihoodState:
    """Return the state before the first update."""
    params = _copy(nnx.split(infiller)[1])
    return LikelihoodState(params, _optimiser(config.lr_likelihood, config).init(params))


def begin_adversarial(
    infiller: ArrayTree, discriminator: FilledReader, critic: FilledReader, config: MaskGANConfig
) -> AdversarialState:
    """From a pre-trained infiller's parameters and two networks.

    They learn much sooner if they begin from an infiller's trunk (`Seq2Seq.begin_from`).

    Raises:
      InputError: if the critic sees the token that it is the baseline for, or the
        discriminator does not see the one that it judges.
    """
    _check_roles(discriminator, critic)
    params, judge, value = map(
        _copy, (infiller, *(nnx.split(x)[1] for x in (discriminator, critic)))
    )
    return AdversarialState(
        params,
        judge,
        value,
        _optimiser(config.lr, config).init(params),
        _optimiser(config.lr_discriminator, config).init(judge),
        _optimiser(config.lr_critic, config).init(value),
    )


def likelihood_step(infiller: Infiller, config: MaskGANConfig) -> Step:
    """One update by maximum likelihood of what stood at the blanks of tokens `[B, T]`."""
    graph, optimiser = nnx.split(infiller)[0], _optimiser(config.lr_likelihood, config)

    def step(
        state: LikelihoodState, tokens: Array, key: PRNGKey
    ) -> tuple[LikelihoodState, dict[str, Array]]:
        present = draw_mask(key, tokens.shape, config)
        loss, grads = jax.value_and_grad(
            lambda params: negative_log_likelihood(nnx.merge(graph, params), tokens, present)
        )(state.infiller)
        updates, opt = optimiser.update(grads, state.optimiser)
        return LikelihoodState(optax.apply_updates(state.infiller, updates), opt), {"nll": loss}

    return step  # type: ignore[return-value]


def discriminate_step(
    infiller: Infiller, discriminator: FilledReader, config: MaskGANConfig
) -> Step:
    """One update of the discriminator: tokens `[B, T]`, and the same with their blanks filled."""
    g_graph, d_graph = nnx.split(infiller)[0], nnx.split(discriminator)[0]
    optimiser = _optimiser(config.lr_discriminator, config)

    def step(
        state: AdversarialState, real: Array, key: PRNGKey
    ) -> tuple[AdversarialState, dict[str, Array]]:
        hide, draw = jax.random.split(key)
        present = draw_mask(hide, real.shape, config)
        fake = nnx.merge(g_graph, state.infiller).fill(draw, real, present)

        def loss(params: ArrayTree) -> tuple[Array, Array]:
            network = nnx.merge(d_graph, params)
            logits = network(jnp.concatenate([real, fake]), jnp.concatenate([present, present]))
            on_real, on_fake = jnp.split(logits, 2)
            value = nnx.softplus(-on_real) + nnx.softplus(on_fake)
            right = 0.5 * (_mean_at(on_real > 0, ~present) + _mean_at(on_fake < 0, ~present))
            return 0.5 * _mean_at(value, ~present), right

        (value, right), grads = jax.value_and_grad(loss, has_aux=True)(state.discriminator)
        updates, opt = optimiser.update(grads, state.opt_discriminator)
        new = optax.apply_updates(state.discriminator, updates)
        state = state._replace(discriminator=new, opt_discriminator=opt)
        return state, {"loss_d": value, "accuracy": right}

    return step  # type: ignore[return-value]


def policy_step(
    infiller: Infiller, discriminator: FilledReader, critic: FilledReader, config: MaskGANConfig
) -> Step:
    """One update of the infiller and one of the critic, on fillings of tokens `[B, T]`."""
    _check_roles(discriminator, critic)
    g_graph, d_graph = nnx.split(infiller)[0], nnx.split(discriminator)[0]
    c_graph = nnx.split(critic)[0]
    optimiser = _optimiser(config.lr, config)
    regression = _optimiser(config.lr_critic, config)

    def step(
        state: AdversarialState, tokens: Array, key: PRNGKey
    ) -> tuple[AdversarialState, dict[str, Array]]:
        hide, draw = jax.random.split(key)
        present = draw_mask(hide, tokens.shape, config)
        filled = nnx.merge(g_graph, state.infiller).fill(draw, tokens, present)
        found = rewards(nnx.merge(d_graph, state.discriminator), filled, present)
        target = returns(found, config.discount)

        def misfit(params: ArrayTree) -> tuple[Array, Array]:
            value = nnx.merge(c_graph, params)(filled, present)
            return _mean_at((target - value) ** 2, ~present), value

        (error, baseline), grads = jax.value_and_grad(misfit, has_aux=True)(state.critic)
        updates, opt_critic = regression.update(grads, state.opt_critic)
        critic_params = optax.apply_updates(state.critic, updates)

        advantages = jnp.clip(target - baseline, -config.most, config.most)
        loss, grads = jax.value_and_grad(
            lambda params: policy_loss(nnx.merge(g_graph, params), filled, present, advantages)
        )(state.infiller)
        updates, opt_infiller = optimiser.update(grads, state.opt_infiller)
        state = state._replace(
            infiller=optax.apply_updates(state.infiller, updates),
            critic=critic_params,
            opt_infiller=opt_infiller,
            opt_critic=opt_critic,
        )
        metrics = {"loss_g": loss, "loss_critic": error, "reward": _mean_at(found, ~present)}
        return state, metrics

    return step  # type: ignore[return-value]


def round_step(
    infiller: Infiller,
    discriminator: FilledReader,
    critic: FilledReader,
    config: MaskGANConfig,
    hold: bool = False,
) -> Step:
    """One round of the game: the discriminator's updates, then the infiller's and the critic's.

    Its batch is real tokens `[K + 1, B, T]`: K for the discriminator and the last for the others.
    With `hold` the infiller stays what it is while its judges learn to judge it.
    """
    learn = discriminate_step(infiller, discriminator, config)
    act = policy_step(infiller, discriminator, critic, config)

    def step(
        state: AdversarialState, batches: Array, key: PRNGKey
    ) -> tuple[AdversarialState, dict[str, Array]]:
        keys = jax.random.split(key, len(batches))
        state, learned = jax.lax.scan(
            lambda state, given: learn(state, *given), state, (batches[:-1], keys[:-1])
        )
        new, acted = act(state, batches[-1], keys[-1])
        if hold:
            new = new._replace(infiller=state.infiller, opt_infiller=state.opt_infiller)
        return new, {**acted, **jax.tree.map(jnp.mean, learned)}

    return step  # type: ignore[return-value]


def _mean_at(values: Array, where: Array) -> Array:
    return jnp.sum(jnp.where(where, values, 0.0)) / jnp.sum(where)


def _copy(params: ArrayTree) -> ArrayTree:
    return jax.tree.map(jnp.array, params)


def _check_roles(discriminator: FilledReader, critic: FilledReader) -> None:
    """Refuse a baseline that has seen the action: it biases the gradient, and nothing shows it."""
    if discriminator.critic:
        raise expected("discriminator", "a FilledReader with critic=False", "critic=True")
    if not critic.critic:
        raise expected("critic", "a FilledReader with critic=True", "critic=False")


def _optimiser(lr: float, config: MaskGANConfig) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(lr))
