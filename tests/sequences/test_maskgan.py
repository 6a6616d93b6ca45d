"""MaskGAN's estimator against sums over all fillings, and short runs of its parts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgen.core.errors import InputError
from jaxgen.models.text.infillers import FilledReader, Infiller
from jaxgen.sequences import maskgan
from jaxgen.train.loop import train_loop

V, T = 3, 3
ALL = jnp.asarray(list(itertools.product(range(V), repeat=T)))
INFILLER = Infiller(V, 4, 5, scale=0.7, rngs=nnx.Rngs(0))
JUDGE = FilledReader(V, 4, 5, scale=1.5, rngs=nnx.Rngs(1))
CRITIC = FilledReader(V, 4, 5, critic=True, scale=1.5, rngs=nnx.Rngs(2))
GRAPH, PARAMS = nnx.split(INFILLER)
ROW = jnp.asarray([2, 0, 1])
# All blanks, and a given token in between: (True where given).
MASKS = [(False, False, False), (False, True, False)]


def everything(mask):
    """All fillings of the row, one to each row of ALL: others count for nothing."""
    present = jnp.broadcast_to(jnp.asarray(mask), ALL.shape)
    return present, jnp.all((ROW[None] == ALL) | ~present, axis=1)


def probabilities(params, mask):
    present, fits = everything(mask)
    log_p = nnx.merge(GRAPH, params).log_probs(ALL, present)
    return jnp.where(fits, jnp.exp(log_p.sum(axis=1)), 0.0)


def estimates(params, mask, advantages):
    """The expectation of the policy's gradient over all fillings, by its own code.

    Its loss is a mean over sequences and linear in the advantages: they carry the weights.
    """
    p = jax.lax.stop_gradient(probabilities(params, mask))[:, None] * len(ALL)
    present, _ = everything(mask)
    return jax.grad(
        lambda q: maskgan.policy_loss(nnx.merge(GRAPH, q), ALL, present, p * advantages)
    )(params)


def by_choices(params, mask, reward, discount):
    """-sum over t of the gradient, by the choice at t alone, of E sum_s discount^(s-t) r_s."""
    present, fits = everything(mask)

    def value(params):
        log_p = nnx.merge(GRAPH, params).log_probs(ALL, present)
        total = 0.0
        for t in range(T):
            alone = jnp.where(jnp.arange(T)[None] == t, log_p, jax.lax.stop_gradient(log_p))
            p = jnp.where(fits, jnp.exp(alone.sum(axis=1)), 0.0)
            # From s = 0 on: what came before the choice cannot depend on it.
            total += jnp.sum(p * (reward @ discount ** (jnp.arange(T) - t)))
        return -total

    return jax.grad(value)(params)


@jax.jit
def gradients(params, mask):
    """Everything that the tests compare, compiled once for all masks."""
    present, _ = everything(mask)
    reward = maskgan.rewards(JUDGE, ALL, present)
    target = maskgan.returns(reward, 0.6)
    # What adds up to the exact values: without a baseline, with a fair one, with a cheating one.
    kinds = {
        "undiscounted": maskgan.returns(reward, 1.0),
        "discounted": target,
        "critic": target - 3 * CRITIC(ALL, present),
        "cheat": target - 3 * JUDGE(ALL, present),
    }
    names = list(kinds)
    each = jax.lax.map(lambda a: estimates(params, mask, a), jnp.stack(list(kinds.values())))
    found = {name: jax.tree.map(lambda x, i=i: x[i], each) for i, name in enumerate(names)}
    exact = jax.grad(lambda q: -jnp.sum(probabilities(q, mask) * reward.sum(axis=1)))(params)
    return found, exact, by_choices(params, mask, reward, 0.6)


def close(got, want, atol=1e-4):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), got, want)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(want)) > 100 * atol


@pytest.mark.parametrize("mask", MASKS)
def test_the_policy_gradient_is_that_of_the_expected_reward(mask):
    found, exact, _ = gradients(PARAMS, jnp.asarray(mask))
    close(found["undiscounted"], exact)


@pytest.mark.parametrize("mask", MASKS)
def test_discounted_it_is_the_sum_of_each_choice_s_own_gradient(mask):
    found, exact, by_choice = gradients(PARAMS, jnp.asarray(mask))
    close(found["discounted"], by_choice)
    with pytest.raises(AssertionError):
        close(found["discounted"], exact)  # the discount matters


@pytest.mark.parametrize("mask", MASKS)
def test_a_critic_leaves_the_expectation_and_one_that_has_seen_the_token_would_not(mask):
    found, _, _ = gradients(PARAMS, jnp.asarray(mask))
    close(found["critic"], found["discounted"])
    with pytest.raises(AssertionError):
        close(found["cheat"], found["discounted"])


def test_the_sampled_policy_gradient_agrees_with_enumeration():
    mask, count = MASKS[0], 200
    present = jnp.broadcast_to(jnp.asarray(mask), (count, T))

    @jax.jit
    def estimate(key):
        filled = INFILLER.fill(key, jnp.broadcast_to(ROW, (count, T)), present)
        target = maskgan.returns(maskgan.rewards(JUDGE, filled, present), 0.6)
        advantages = target - CRITIC(filled, present)

        def loss(params):
            return maskgan.policy_loss(nnx.merge(GRAPH, params), filled, present, advantages)

        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(jax.grad(loss)(PARAMS))])

    exact = gradients(PARAMS, jnp.asarray(mask))[0]["discounted"]
    found = np.asarray(jax.lax.map(estimate, jax.random.split(jax.random.key(5), 100)))
    want = np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(exact)])
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert np.mean(np.abs(found.mean(axis=0) - want) < 3 * error + 1e-6) > 0.98
    assert np.linalg.norm(error) < 0.25 * np.linalg.norm(want)


def test_returns_are_a_loop_s():
    rewards = np.random.default_rng(0).normal(size=(4, 7))
    wanted = np.zeros_like(rewards)
    for row in range(4):
        for t in range(7):
            for s in range(t, 7):
                wanted[row, t] += 0.9 ** (s - t) * rewards[row, s]
    np.testing.assert_allclose(maskgan.returns(jnp.asarray(rewards), 0.9), wanted, rtol=1e-5)


def test_rewards_are_log_probabilities_at_blanks_only():
    present = jnp.asarray([[True, False, True]])
    logits = np.asarray(JUDGE(ROW[None], present))
    got = maskgan.rewards(JUDGE, ROW[None], present)
    np.testing.assert_allclose(got, [[0, -np.log1p(np.exp(-logits[0, 1])), 0]], rtol=1e-5)


@pytest.mark.parametrize("present", [0.0, 0.3, 0.5, 0.99])
def test_masks_keep_the_rate(present):
    count, length = 3000, 10
    blanks = max(1, 10 - round(present * 10))
    for kind in maskgan.MASKS:
        config = maskgan.MaskGANConfig(present=present, mask=kind)
        mask = np.asarray(maskgan.draw_mask(jax.random.key(0), (count, length), config))
        assert mask.dtype == bool
        assert set(np.sum(~mask, axis=1)) == {blanks}
        runs = np.abs(np.diff(~mask, prepend=False, append=False, axis=1)).sum(axis=1) // 2
        assert kind == "random" or np.all(runs == 1)
        if blanks == 5 and kind == "random":
            assert np.mean(runs) > 2
            np.testing.assert_allclose(mask.mean(axis=0), 0.5, atol=0.05)
        if kind == "contiguous":  # every place is as likely as any other
            starts = np.bincount(np.argmin(mask, axis=1))
            np.testing.assert_allclose(starts / count, 1 / (length - blanks + 1), atol=0.035)


def test_what_cannot_be_is_refused():
    key = jax.random.key(0)
    with pytest.raises(InputError, match="mask: expected contiguous or random; got dotted"):
        maskgan.draw_mask(key, (2, 3), maskgan.MaskGANConfig(mask="dotted"))
    with pytest.raises(InputError, match="present: expected a rate"):
        maskgan.draw_mask(key, (2, 3), maskgan.MaskGANConfig(present=1.0))
    config = maskgan.MaskGANConfig()
    with pytest.raises(InputError, match="critic: expected a FilledReader with critic=True"):
        maskgan.policy_step(INFILLER, JUDGE, JUDGE, config)
    with pytest.raises(InputError, match="discriminator: expected"):
        maskgan.begin_adversarial(PARAMS, CRITIC, CRITIC, config)


CONFIG = maskgan.MaskGANConfig(
    present=0.4, lr_likelihood=0.02, lr=0.01, lr_discriminator=0.01, lr_critic=0.01
)
DATA = jnp.asarray([[0, 1, 2], [2, 2, 0]])


def batcher(data, key):
    return data[jax.random.randint(key, (32,), 0, len(data))]


def params_of(network):
    return nnx.split(network)[1]


class Stub(FilledReader):
    """Sure of everything: token 2 is real, other tokens are not."""

    def __init__(self, size):
        self.critic, self.size = False, nnx.Param(jnp.asarray(size))

    def __call__(self, filled, present):
        return jnp.where(filled == 2, self.size[...], -self.size[...])


def test_the_discriminator_s_loss_and_accuracy():
    infiller = nnx.merge(GRAPH, PARAMS, copy=True)  # what others use stays as it is
    infiller.out.bias[...] = jnp.asarray([30.0, 0.0, 0.0])  # fills in nothing but 0
    for size, right in ((3.0, 1.0), (-3.0, 0.0)):
        step = maskgan.discriminate_step(infiller, Stub(size), CONFIG)
        state = maskgan.begin_adversarial(params_of(infiller), Stub(size), CRITIC, CONFIG)
        new, metrics = step(state, jnp.full((4, T), 2), jax.random.key(0))
        assert metrics["accuracy"] == right
        np.testing.assert_allclose(metrics["loss_d"], np.log1p(np.exp(-size)), rtol=1e-6)
        grew = new.discriminator["size"][...] - size
        np.testing.assert_allclose(grew, CONFIG.lr_discriminator, rtol=1e-3)


def pretrained(steps, path=None):
    return train_loop(
        jax.random.key(1),
        maskgan.begin_likelihood(INFILLER, CONFIG),
        maskgan.likelihood_step(INFILLER, CONFIG),
        batcher,
        DATA,
        steps=steps,
        checkpoint=path,
    )


@pytest.fixture(scope="module")
def straight():
    return pretrained(200)


def test_maximum_likelihood_reaches_the_data_s_entropy(straight):
    network = nnx.merge(GRAPH, straight.infiller)

    def nll(*present):
        mask = jnp.broadcast_to(jnp.asarray(present), DATA.shape)
        return float(maskgan.negative_log_likelihood(network, DATA, mask))

    # Any given token tells which of the two it is, one that comes later too.
    assert nll(False, False, True) < 0.1
    assert nll(True, False, False) < 0.1


def test_stopped_pre_training_goes_on_bit_for_bit(straight, tmp_path):
    pretrained(100, tmp_path / "run")
    resumed = pretrained(200, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, straight, resumed)


def adversarial(steps, path=None):
    learn = maskgan.discriminate_step(INFILLER, JUDGE, CONFIG)
    act = maskgan.policy_step(INFILLER, JUDGE, CRITIC, CONFIG)

    def both(state, batch, key):
        state, one = learn(state, batch, jax.random.fold_in(key, 0))
        state, two = act(state, batch, jax.random.fold_in(key, 1))
        return state, one | two

    state = maskgan.begin_adversarial(PARAMS, JUDGE, CRITIC, CONFIG)
    chunk = 2 if steps < 50 else 50
    return train_loop(
        jax.random.key(3), state, both, batcher, DATA, steps=steps, chunk=chunk, checkpoint=path
    )


@pytest.mark.slow
def test_a_stopped_game_goes_on_bit_for_bit(tmp_path):
    straight = adversarial(4)
    adversarial(2, tmp_path / "run")
    resumed = adversarial(4, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, straight, resumed)
    for network, first in zip(
        straight[:3], (PARAMS, *map(params_of, (JUDGE, CRITIC))), strict=True
    ):
        pairs = zip(jax.tree.leaves(network), jax.tree.leaves(first), strict=True)
        assert any(not np.array_equal(a, b) for a, b in pairs)  # every network learns


@pytest.mark.slow
def test_adversarial_training_alone_finds_what_the_data_are():
    """Without likelihood: blanks are filled by what the discriminator and critic say alone."""
    tokens = jnp.tile(DATA, (500, 1))
    present = jnp.broadcast_to(jnp.asarray([False, False, True]), tokens.shape)

    def share(params):
        filled = nnx.merge(GRAPH, params).fill(jax.random.key(9), tokens, present)
        return float(jnp.mean(jnp.all(filled == tokens, axis=1)))

    assert share(adversarial(600).infiller) > 2 * share(PARAMS) + 0.1


@pytest.mark.slow
def test_a_round_is_its_parts_and_may_hold_the_infiller():
    state = maskgan.begin_adversarial(PARAMS, JUDGE, CRITIC, CONFIG)
    key, batches = jax.random.key(4), jnp.stack([DATA, DATA[::-1], DATA])
    keys = jax.random.split(key, 3)
    learn = jax.jit(maskgan.discriminate_step(INFILLER, JUDGE, CONFIG))
    act = jax.jit(maskgan.policy_step(INFILLER, JUDGE, CRITIC, CONFIG))
    parts = learn(learn(state, batches[0], keys[0])[0], batches[1], keys[1])[0]
    parts = act(parts, batches[2], keys[2])[0]
    for hold, infiller in ((False, parts.infiller), (True, PARAMS)):
        step = maskgan.round_step(INFILLER, JUDGE, CRITIC, CONFIG, hold=hold)
        found = jax.jit(step)(state, batches, key)[0]
        wanted = (infiller, parts.discriminator, parts.critic)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found[:3], wanted
        )
