"""Step-size rules by hand and in a run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen
from jaxgen import InputError, adapt, kernels, schedules
from tests.toys import LinearGaussian

CLOCK = adapt.StepIndex(jnp.float32(0.25), jnp.int32(2), jnp.int32(7))


def test_rules_without_memory():
    assert float(adapt.Fixed(0.3).size((), CLOCK)) == pytest.approx(0.3)
    rule = adapt.InverseSqrtBeta(0.1, 0.15)
    assert float(rule.size((), CLOCK)) == pytest.approx(0.15)
    assert float(rule.size((), CLOCK._replace(beta=jnp.float32(1.0)))) == pytest.approx(0.1)
    table = adapt.PerTemperature(jnp.array([0.5, 0.4, 0.3]))
    assert float(table.size((), CLOCK)) == pytest.approx(0.4)
    late = CLOCK._replace(temperature=jnp.int32(9))
    assert float(table.size((), late)) == pytest.approx(0.3)
    schedule = optax.exponential_decay(1.0, 1, 0.5)
    rule = adapt.Scheduled(schedule)
    assert float(rule.size((), CLOCK)) == pytest.approx(0.5**7)


def test_the_co_generation_rule_is_the_authors():
    rule = adapt.CoGeneration()
    memory = rule.init(4)
    step, average = 0.01, 0.65
    for mean in np.random.default_rng(0).uniform(0.3, 1.0, size=60):
        step = np.clip(step * (1.02 if average > 0.65 else 0.98), 1e-4, 0.5)
        average = 0.9 * average + 0.1 * mean
        memory = rule.update(memory, jnp.full(4, mean), 0.9)
        np.testing.assert_allclose(memory.step, step, rtol=1e-4)
    assert not rule.freezes


@pytest.mark.parametrize("per_chain", [False, True])
def test_dual_averaging_finds_the_step_that_gives_the_target(per_chain):
    # A chain whose acceptance is exp(-step / width) has rate 0.65 at width * -log 0.65.
    width = np.array([0.1, 1.0, 10.0]) if per_chain else np.full(3, 0.5)
    rule = adapt.DualAveraging(0.01, target=0.65, per_chain=per_chain)
    memory = rule.init(3)
    assert memory.log_step.shape == ((3,) if per_chain else ())
    for _ in range(40):
        rate = jnp.exp(-rule.size(memory, CLOCK) / width)
        memory = rule.update(memory, rate, 0.8)
    memory = rule.start_warmup(memory)
    for _ in range(200):
        rate = jnp.exp(-rule.size(memory, CLOCK) / width)
        memory = rule.warm(memory, rate, 0.8)
    memory = rule.freeze(memory)
    want = -width * np.log(0.65)
    np.testing.assert_allclose(np.broadcast_to(rule.size(memory, CLOCK), 3), want, rtol=0.15)
    frozen = rule.after_freeze(memory, jnp.zeros(3), 0.8)
    np.testing.assert_array_equal(frozen.log_step, memory.log_step)


def test_freezing_without_warm_up_keeps_the_step():
    rule = adapt.DualAveraging(0.02)
    memory = rule.freeze(rule.start_warmup(rule.init(2)))
    assert float(rule.size(memory, CLOCK)) == pytest.approx(0.02)


def test_per_chain_steps_follow_their_ancestors():
    rule = adapt.DualAveraging(0.1, per_chain=True)
    memory = rule.init(3)._replace(log_step=jnp.log(jnp.array([1.0, 2.0, 3.0])))
    memory = rule.resample(memory, jnp.array([2, 2, 0]))
    np.testing.assert_allclose(rule.size(memory, CLOCK), [3, 3, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("step_size", "words"),
    [
        (0.0, "step_size: expected a positive number"),
        (float("nan"), "step_size"),
        (adapt.DualAveraging(0.1, target=1.5), "target"),
        (adapt.InverseSqrtBeta(0.1, -1.0), "largest"),
    ],
)
def test_impossible_steps_are_refused(step_size, words):
    with pytest.raises(InputError, match=words):
        jaxgen.sample(
            jax.random.key(0), LinearGaussian(2).posterior, num_chains=4, step_size=step_size
        )


def test_a_step_that_diverges_is_an_error_that_says_so():
    with pytest.raises(InputError, match="step_size: expected a step at which proposals are"):
        jaxgen.sample(
            jax.random.key(0),
            LinearGaussian(2).posterior,
            kernels.MALA(),
            num_chains=8,
            step_size=1e4,
            betas=schedules.linear(5),
        )


def test_a_rule_that_never_freezes_labels_its_draws_adapted():
    result = jaxgen.sample(
        jax.random.key(0),
        LinearGaussian(2).posterior,
        kernels.MALA(),
        num_chains=8,
        step_size=adapt.CoGeneration(0.1),
        betas=schedules.linear(5),
        num_steps=4,
    )
    assert result.exactness == "adapted"
