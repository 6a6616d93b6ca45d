"""Scouts find modes that annealing loses, and leave everything else as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import posteriors
from jaxgen.core.pytree import pytree
from jaxgen.sampler import driver, loop, scouts
from jaxgen.sampler.state import Phase, Stage
from tests import toys


def share_of_modes(reference, result):
    label = reference.modes(np.asarray(result.draws).reshape(-1, reference.dimension))
    return np.bincount(label, minlength=len(reference.modes.masses)) / len(label)


def test_modes_that_hold_little_at_high_temperatures_are_found():
    """Annealing alone lost a mode of 5% or more in each of 20 runs, and was 0.8 nats too low."""
    reference = posteriors.get("eight-modes-32")
    found = 0
    for seed in range(4):
        result = jaxgen.sample(jax.random.key(seed), reference.posterior)
        share = share_of_modes(reference, result)
        error = abs(result.log_z - reference.log_z)
        assert error < 4 * result.log_z_standard_error
        assert error < 1.0
        started_from_modes = bool(jnp.any(result.state.mixture.centres != 0))
        distance = 0.5 * np.abs(share - reference.modes.masses).sum()
        found += started_from_modes and share[0] > 0.05 and distance < 0.45
    # In one run of six to eight the scouts do not find the largest mode.
    assert found >= 3


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_two_equal_modes_get_equal_shares(seed):
    reference = posteriors.get("mirrored-8")
    result = jaxgen.sample(jax.random.key(seed), reference.posterior)
    assert abs(share_of_modes(reference, result)[0] - 0.5) < 0.1
    assert result.log_z == pytest.approx(reference.log_z, abs=0.15)


def reconnoitred(monkeypatch, posterior):
    """What `fit_proposal` was given, and what it made of it."""
    given = []
    fit = driver.fit_proposal

    def kept(state, config):
        given.append(jax.tree.map(jnp.copy, state))
        given.append(fit(state, config))
        return given[-1]

    monkeypatch.setattr(driver, "fit_proposal", kept)
    jaxgen.sample(jax.random.key(0), posterior, num_steps=0, warmup=0)
    return given


def test_scouts_start_at_the_prior_and_wider_and_leave_the_pilot_as_it_was(monkeypatch):
    sent = []
    send = driver.send_scouts

    def kept(state, config):
        before = jax.tree.map(jnp.copy, state)
        sent.extend([before, jax.tree.map(jnp.copy, send(state, config))])
        return send(before, config)

    monkeypatch.setattr(driver, "send_scouts", kept)
    given = reconnoitred(monkeypatch, toys.LinearGaussian(64, noise=0.5).posterior)
    before, scouts_of = sent
    start = np.asarray(scouts_of.chains.position)
    assert np.std(start[::2]) == pytest.approx(1.0, abs=0.05)
    assert np.std(start[1::2]) == pytest.approx(2.0, abs=0.1)
    np.testing.assert_array_equal(scouts_of.pilot.position, before.chains.position)
    fitted = given[1]
    for name, after in fitted.adaptation._asdict().items():
        np.testing.assert_array_equal(after, getattr(before.adaptation, name))
    np.testing.assert_array_equal(fitted.num_divergent, before.num_divergent)


@pytree
class Inside:
    """Uniform on [-1, 1]^6, with no coordinates that keep it there."""

    low: jax.Array

    def latent(self, coordinates):
        """The coordinates themselves."""
        return coordinates

    def sample(self, key):
        """One draw."""
        return jax.random.uniform(key, (6,), minval=self.low, maxval=1.0)

    def log_prob(self, z):
        """Constant inside."""
        return jnp.where(jnp.all(jnp.abs(z) <= 1.0), -6 * jnp.log(2.0), -jnp.inf)


@pytest.mark.slow
def test_no_scout_of_a_bounded_prior_starts_outside(monkeypatch):
    posterior = jaxgen.Posterior(
        Inside(jnp.float32(-1.0)), lambda z: z, lambda x: -jnp.sum(x**2) / 0.002
    )
    sent = []
    send = driver.send_scouts
    monkeypatch.setattr(
        driver,
        "send_scouts",
        lambda state, config: sent.append(send(state, config)) or sent[-1],
    )
    monkeypatch.setattr(loop.scouts, "MOST_ROUNDS", 0)
    jaxgen.sample(jax.random.key(0), posterior, num_steps=0, warmup=0)
    start = np.asarray(sent[0].chains.position)
    assert np.abs(start).max() <= 1
    assert np.std(start) == pytest.approx(1 / np.sqrt(3), abs=0.1)


def test_a_posterior_too_sharp_for_scouts_costs_one_round(monkeypatch):
    rounds = []
    advance = driver.advance

    def counted(state, config, phase, iterations, steps, stage=Stage.FINAL, most_steps=None):
        rounds.append((phase, stage, steps))
        return advance(state, config, phase, iterations, steps, stage, most_steps)

    monkeypatch.setattr(driver, "advance", counted)
    sharp = toys.LinearGaussian(16, noise=1e-3).posterior
    jaxgen.sample(jax.random.key(0), sharp, num_steps=0, warmup=0)
    at_the_end = [r for r in rounds if r[:2] == (Phase.WARM_UP, Stage.PILOT)]
    assert at_the_end == [
        (Phase.WARM_UP, Stage.PILOT, loop.SETTLE),
        (Phase.WARM_UP, Stage.PILOT, scouts.STEPS),
    ]
