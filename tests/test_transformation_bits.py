"""Programs that are compiled in other ways give the same bits: alone, under `jit`, in a `scan`."""

import jax
import jax.numpy as jnp
import pytest

import jaxgen
from tests.transformed import KEY, NUMBERS, TOY, observed, run, same_bits

# Bits of different programs agree where XLA optimises them, as it does for users, and not else.
pytestmark = pytest.mark.optimised


@pytest.fixture(scope="module")
def plain():
    return run(KEY, TOY.posterior)


@pytest.fixture(scope="module")
def jitted():
    return jax.jit(run)


def test_jit_of_sample_gives_the_same_bits(plain, jitted):
    result = jitted(KEY, TOY.posterior).settled()
    same_bits(plain, result, (*NUMBERS, "draws", "acceptance_rate", "island_log_z", "weights"))
    for name in ("history", "pilot_history"):
        same_bits(getattr(plain, name), getattr(result, name), ("beta", "ess", "log_z"))
    assert result.notes == plain.notes
    assert repr(result) == repr(plain)


def test_a_new_observation_compiles_nothing(jitted):
    other = observed(TOY.posterior.condition.observed + 0.5)
    before = jitted._cache_size()
    jitted(KEY, other)
    assert jitted._cache_size() == max(before, 1)


@pytest.mark.parametrize("options", [{"betas": jaxgen.schedules.geometric(6, 0.01)}, {}])
def test_jit_of_ais_gives_the_same_bits(options):
    def function(key, target):
        return jaxgen.ais(key, target, num_chains=16, step_size=0.2, num_mcmc_steps=2, **options)

    plain, jitted = function(KEY, TOY.posterior), jax.jit(function)(KEY, TOY.posterior).settled()
    same_bits(plain, jitted, NUMBERS)
    same_bits(plain.history, jitted.history, plain.history._fields)
    assert (plain.notes, plain.exactness) == (jitted.notes, jitted.exactness)


@pytest.mark.slow
def test_scan_over_keys_gives_the_same_bits(plain):
    def step(carry, key):
        return carry, run(key, TOY.posterior).log_z

    log_z = jax.lax.scan(step, 0, jnp.stack([KEY, jax.random.key(6)]))[1]
    assert float(log_z[0]) == plain.log_z


def test_an_integer_is_a_key(plain):
    assert run(5, TOY.posterior).log_z == plain.log_z


@pytest.mark.slow
def test_on_a_cpu_each_item_has_the_bits_of_sample():
    image = TOY.posterior.condition.observed
    seen = jnp.stack([image, image + 0.4, image - 0.7])
    each = jaxgen.sample_each(KEY, observed, seen, num_chains=16, num_steps=4, warmup=3)
    for index, (y, result) in enumerate(zip(seen, each, strict=True)):
        same_bits(result, run(jax.random.fold_in(KEY, index), observed(y)), (*NUMBERS, "draws"))
