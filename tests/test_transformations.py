"""`sample`, `ais`, `bdmc`, `loglik`, `ascend` and `inpaint` under JAX's transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxgen
from jaxgen.core.errors import InputError
from jaxgen.core.pytree import replace
from tests.toys import LinearGaussian
from tests.transformed import KEY, TOY, observed, run, same_bits


def anneal(key, target):
    betas = jaxgen.schedules.linear(8)
    return jaxgen.ais(key, target, betas=betas, num_chains=16, step_size=0.2)


@pytest.fixture(scope="module")
def plain():
    return run(KEY, TOY.posterior)


def test_vmap_over_keys_and_observations_finds_each_log_z():
    image = TOY.posterior.condition.observed
    seen = jnp.stack([image, image + 0.4, image - 0.7])
    keys = jax.random.split(KEY, 3)
    results = jax.vmap(lambda key, y: run(key, observed(y)))(keys, seen).unstacked()
    for key, y, result in zip(keys, seen, results, strict=True):
        alone = run(key, observed(y))
        error = np.hypot(result.log_z_standard_error, alone.log_z_standard_error)
        assert abs(result.log_z - alone.log_z) < 4 * error + 0.02
        assert len(result.history.beta) > 0
        assert np.all(result.history.beta > 0)


@pytest.mark.slow
def test_items_of_a_vmap_follow_their_own_temperatures():
    def sharper(noise):
        condition = replace(TOY.posterior.condition, noise=noise)
        posterior = jaxgen.Posterior(TOY.posterior.prior, TOY.posterior.generator, condition)
        return jaxgen.sample(KEY, posterior, num_chains=16, num_steps=0, warmup=0, pilot=False)

    noise = jnp.asarray([1.0, 0.02])
    wide, sharp = jax.jit(jax.vmap(sharper))(noise).unstacked()
    assert len(sharp.history.beta) > len(wide.history.beta)
    assert wide.num_gradients.mean() < sharp.num_gradients.mean()


def test_a_posterior_that_was_never_looked_at_may_be_closed_over():
    fresh = observed(TOY.posterior.condition.observed)
    result = jax.jit(lambda key: run(key, fresh))(KEY).settled()
    assert result.log_z == pytest.approx(TOY.log_z, abs=5 * result.log_z_standard_error)


@pytest.mark.slow
def test_shard_map_over_keys():
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("x")

    def each(keys):
        return jax.vmap(lambda key: anneal(key, TOY.posterior).log_z)(keys)

    keys = jax.random.split(KEY, 4)
    spread = jax.shard_map(each, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    # Two items in a batch are not rounded as four are.
    np.testing.assert_allclose(jax.jit(each)(keys), jax.jit(spread)(keys), rtol=1e-3)


def test_an_exported_program_can_be_stored_and_called_again(plain):
    def numbers(words, y):
        result = run(jax.random.wrap_key_data(words), observed(y))
        return result.draws, result.log_z, result.failure

    words, seen = jax.random.key_data(KEY), TOY.posterior.condition.observed
    stored = export.export(jax.jit(numbers))(words, seen).serialize()
    draws, log_z, failure = export.deserialize(stored).call(words, seen)
    np.testing.assert_allclose(draws, plain.draws, rtol=1e-4, atol=1e-4)
    assert float(log_z) == pytest.approx(plain.log_z, abs=1e-4)
    assert int(failure) == 0


def test_what_cannot_be_raised_is_reported():
    def nowhere(image):
        return jnp.full((), -jnp.inf) + 0.0 * image.sum()

    posterior = jaxgen.Posterior(TOY.posterior.prior, TOY.posterior.generator, nowhere)
    result = jax.jit(run)(KEY, posterior)
    assert int(result.failure) == 1
    with pytest.raises(InputError, match="condition: expected a finite log likelihood"):
        result.settled()


def test_too_few_temperatures_are_reported():
    adaptive = jaxgen.schedules.Adaptive(0.99, max_temperatures=2)
    few = jax.jit(lambda k, p: jaxgen.ais(k, p, betas=adaptive, num_chains=16, step_size=0.2))
    with pytest.raises(InputError, match="betas: the temperatures were spent"):
        few(KEY, LinearGaussian(4, noise=0.01, seed=1).posterior).settled()


@pytest.mark.parametrize(
    "feature",
    [{"progress": print}, {"folder": "here"}, {"reduce": max}, {"devices": jax.devices()}],
)
def test_what_needs_the_host_is_refused_by_name(feature):
    with pytest.raises(InputError, match=f"{next(iter(feature))}: expected None under jax.jit"):
        jax.jit(lambda key: run(key, TOY.posterior, **feature))(KEY)


def test_given_positions_are_noted_under_jit_too():
    start = jnp.zeros((16, 4))
    plain = run(KEY, TOY.posterior, start=start)
    jitted = jax.jit(lambda key: run(key, TOY.posterior, start=start))(KEY).settled()
    assert jitted.notes == plain.notes
    assert "without annealing" in jitted.notes[0]


@pytest.mark.slow
def test_results_say_what_they_are_before_they_are_settled():
    many = jax.vmap(lambda key: run(key, TOY.posterior))(jax.random.split(KEY, 2))
    assert "SampleResult of [2] runs" in repr(many)
    with pytest.raises(InputError, match="Use unstacked"):
        many.settled()


def test_ascend_under_jit_gives_the_same_bits():
    climb = functools.partial(jaxgen.ascend, num_chains=4, num_steps=5)
    plain, jitted = climb(KEY, TOY.posterior), jax.jit(climb)(KEY, TOY.posterior)
    same_bits(plain, jitted, ("position", "objective", "history"))
    assert jitted.exactness == "approximate"


def decoder():
    return TOY.posterior.prior, TOY.posterior.generator


@pytest.mark.slow
def test_loglik_under_jit():
    prior, generator = decoder()
    images = jnp.stack([TOY.posterior.condition.observed, TOY.posterior.condition.observed + 0.3])
    noise = jaxgen.GaussianObservation(0.3)

    def likelihood(key, images):
        return jaxgen.loglik(key, generator, images, noise, prior=prior, num_chains=16)

    plain, jitted = likelihood(KEY, images), jax.jit(likelihood)(KEY, images)
    np.testing.assert_allclose(jitted.log_prob, plain.log_prob, rtol=1e-5)
    assert float(jitted.mean) == pytest.approx(plain.mean, abs=1e-4)


def test_bdmc_under_jit():
    prior, generator = decoder()
    noise = jaxgen.GaussianObservation(0.3)

    def bounds(key):
        betas, few = jaxgen.schedules.sigmoid(20), {"num_pairs": 3, "num_chains": 4}
        return jaxgen.bdmc(key, prior, generator, noise, betas=betas, step_sizes=0.3, **few)

    plain, jitted = bounds(KEY), jax.jit(bounds)(KEY)
    np.testing.assert_allclose(jitted.lower, plain.lower, rtol=1e-3, atol=1e-3)
    assert float(jitted.gap) == pytest.approx(plain.gap, abs=1e-2)


@pytest.mark.slow
def test_inpaint_under_jit_and_vmap():
    prior, generator = decoder()
    image = TOY.posterior.condition.observed
    mask = jnp.ones(image.shape).at[0].set(0.0)

    def complete(key, image, mask):
        return jaxgen.tasks.inpaint(
            key, generator, image, mask, prior=prior, noise=0.3, num_chains=16, num_steps=6
        )

    plain, jitted = complete(KEY, image, mask), jax.jit(complete)(KEY, image, mask)
    for name in ("mean", "deviation", "low", "high", "samples", "residual", "misfit"):
        np.testing.assert_allclose(getattr(jitted, name), getattr(plain, name), atol=2e-4)
    pair = jax.vmap(complete, (0, None, None))(jax.random.split(KEY, 2), image, mask)
    assert pair.mean.shape == (2, *image.shape)
    assert not np.array_equal(pair.mean[0], pair.mean[1])


@pytest.mark.slow
def test_many_posteriors_are_one_program_whatever_the_batch():
    image = TOY.posterior.condition.observed
    seen = jnp.stack([image, image + 0.4, image - 0.7])
    told = []
    settings = {"num_chains": 16, "num_steps": 4, "warmup": 3}
    pairs = jaxgen.sample_each(
        KEY, observed, seen, batch=2, progress=lambda *x: told.append(x), **settings
    )
    assert told == [(2, 3), (3, 3)]
    for index, (y, result) in enumerate(zip(seen, pairs, strict=True)):
        alone = run(jax.random.fold_in(KEY, index), observed(y))
        error = np.hypot(result.log_z_standard_error, alone.log_z_standard_error)
        assert abs(result.log_z - alone.log_z) < 4 * error + 0.02
        assert result.draws.shape == alone.draws.shape
        assert isinstance(result.notes, tuple)


def test_an_item_that_fails_is_named():
    def make(scale):
        condition = replace(TOY.posterior.condition, noise=scale)
        return jaxgen.Posterior(TOY.posterior.prior, TOY.posterior.generator, condition)

    scales = jnp.asarray([3.0, 1e-4])
    settings = {"num_chains": 16, "num_steps": 0, "warmup": 0, "pilot": False}
    settings["betas"] = jaxgen.schedules.Adaptive(0.9, max_temperatures=4)
    with pytest.raises(InputError, match="item 1: betas: the temperatures were spent"):
        jaxgen.sample_each(KEY, make, scales, **settings)
    # Told of each, the caller gets the error and the others' results, with the draws they had.
    told, steps = {}, []
    settings |= {"each": told.__setitem__, "progress": lambda *x: steps.append(x)}
    assert jaxgen.sample_each(KEY, make, scales, **settings) == []
    assert steps == [(1, 2), (2, 2)]
    assert list(told) == [0, 1]
    assert "item 1: betas: the temperatures were spent" in str(told[1])
    again = {}
    settings |= {"each": again.__setitem__, "which": [0]}
    jaxgen.sample_each(KEY, make, scales, **settings)
    assert list(again) == [0]
    np.testing.assert_array_equal(again[0].position, told[0].position)
    assert jaxgen.sample_each(KEY, make, scales, **settings | {"which": []}) == []
    for which in ([0, 0], [2], [-1]):
        with pytest.raises(InputError, match="which: expected different numbers from 0 to 1"):
            jaxgen.sample_each(KEY, make, scales, **settings | {"which": which})


@pytest.mark.slow
def test_settings_of_the_calling_thread_hold_for_every_item():
    seen = []

    def make(shift):
        seen.append(jax.config.jax_enable_x64)
        return observed(TOY.posterior.condition.observed + shift)

    with jax.enable_x64(True):
        shifts = jnp.asarray([0.0, 0.1, 0.2], jnp.float32)
        each = jaxgen.sample_each(0, make, shifts, num_chains=16, num_steps=2, warmup=1)
        alone = jaxgen.sample(
            jax.random.fold_in(jax.random.key(0), 2),
            make(shifts[2]),
            num_chains=16,
            num_steps=2,
            warmup=1,
        )
    assert all(seen)
    same_bits(each[2], alone, ("log_z", "draws"))


@pytest.mark.parametrize(
    ("items", "got"), [({"a": jnp.zeros(2), "b": jnp.zeros(3)}, r"\[2, 3\]"), (1.0, r"\[0\]")]
)
def test_items_must_have_one_length(items, got):
    with pytest.raises(InputError, match=f"items: .* got lengths {got}"):
        jaxgen.sample_each(KEY, observed, items)


def test_annealing_step_by_step_in_a_loop_of_ones_own():
    algorithm = jaxgen.annealed(TOY.posterior, num_chains=32, num_mcmc_steps=2)

    @jax.jit
    def whole(key):
        def more(carry):
            return carry[0].beta < 1.0

        def step(carry):
            state, count = carry
            return algorithm.step(state)[0], count + 1

        return jax.lax.while_loop(more, step, (algorithm.init(key), 0))

    state, count = whole(KEY)
    found = algorithm.evidence(state)
    assert abs(found.log_z - TOY.log_z) < 4 * found.standard_error + 0.05
    assert int(state.temperature) == int(count) > 1
    # Further steps draw at the last beta, and weigh nothing anew.
    moved, info = algorithm.step(state)
    assert not bool(info.active)
    assert float(info.beta) == 1.0
    np.testing.assert_array_equal(moved.log_weight, state.log_weight)
    assert not np.array_equal(moved.chains.position, state.chains.position)


def test_annealed_with_a_list_of_betas_is_ais():
    betas = jaxgen.schedules.linear(6)
    options = {"num_chains": 16, "num_mcmc_steps": 1, "step_size": 0.2, "resample": None}
    algorithm = jaxgen.annealed(TOY.posterior, None, betas, precondition=False, **options)
    state, rows = jax.lax.scan(lambda s, _: algorithm.step(s), algorithm.init(KEY), None, length=6)
    reference = jaxgen.ais(KEY, TOY.posterior, betas=betas, **options)
    np.testing.assert_array_equal(rows.beta, reference.history.beta)
    np.testing.assert_allclose(state.log_weight, reference.log_weight, rtol=1e-4, atol=1e-4)
