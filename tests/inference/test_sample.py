"""`sample`: right draws, one compilation, resumption to the last bit, honest labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxgen
from jaxgen import InputError, kernels, schedules
from jaxgen.sampler import iteration, prepare
from jaxgen.sampler import program as engine
from tests.toys import LinearGaussian


@pytest.fixture(scope="module")
def problem():
    return LinearGaussian(4, noise=0.3, seed=3)


@pytest.fixture(scope="module")
def result(problem):
    return jaxgen.sample(jax.random.key(0), problem.posterior, num_chains=400)


def test_defaults_draw_from_the_posterior(problem, result):
    assert result.draws.shape == (400, 10, 4)
    assert result.exactness == "exact"
    z = result.draws.astype(np.float64)
    per_chain = z.mean(axis=1)
    error = per_chain.std(axis=0, ddof=1) / np.sqrt(400)
    assert np.all(np.abs(per_chain.mean(axis=0) - problem.mean) < 4 * error)
    assert np.all(error < 0.05)
    covariance = np.cov(z.reshape(-1, 4).T)
    np.testing.assert_allclose(covariance, problem.covariance, atol=0.05)
    assert abs(result.log_z - problem.log_z) < 4 * result.log_z_standard_error + 0.02
    assert 0.6 < result.acceptance_rate.mean() < 0.97


def test_a_result_accounts_for_itself(result):
    assert result.weights.shape == (400,)
    np.testing.assert_allclose(result.weights, 1 / 400, rtol=1e-5)
    assert result.history.beta[-1] == 1.0
    assert len(result.history.ess) == len(result.history.beta)
    assert 1 < result.num_lineages <= 400
    steps = _steps_beside_annealing(result)
    least = sum(max(len(h.beta) - 1, 0) for h in (result.history, result.pilot_history))
    taken = int(result.state.t)
    assert 2 * least + min(steps) <= taken <= 8 * least + max(steps)
    # Jittered lengths average 10.
    assert 8 * taken < result.num_gradients[0] < 12 * taken
    assert len(set(result.num_gradients)) == 1


def _steps_beside_annealing(result):
    # A pilot ends with four steps at beta = 1, and scouts take one or two rounds of four. The first
    # row of a stage is the pool's, at which nothing moves.
    return (38, 42) if len(result.pilot_history.beta) else (30,)


def test_a_number_of_steps_that_is_given_is_kept(problem):
    result = jaxgen.sample(jax.random.key(0), problem.posterior, num_mcmc_steps=3)
    rows = sum(max(len(h.beta) - 1, 0) for h in (result.history, result.pilot_history))
    assert int(result.state.t) - 3 * rows in _steps_beside_annealing(result)


def test_chains_move_until_they_have_mixed(problem, result):
    """With a step so small that nothing moves as often as is allowed, else less often."""

    def steps_per_temperature(result, others):
        rows = sum(max(len(h.beta) - 1, 0) for h in (result.history, result.pilot_history))
        assert rows
        return (int(result.state.t) - others) / rows

    stuck = jaxgen.sample(
        jax.random.key(0), problem.posterior, step_size=1e-3, num_steps=0, warmup=0
    )
    most, least = (steps_per_temperature(stuck, others) for others in (4 + 4, 4 + 8))
    assert least <= 8 <= most
    assert steps_per_temperature(result, 38) < 4


def test_the_correlation_of_positions_is_that_of_numpy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3)).astype(np.float32)
    y = (0.7 * x + 0.3 * rng.normal(size=x.shape) + 5).astype(np.float32)
    a, b = (z - z.mean(0) for z in (x, y))
    wanted = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    trees = [{"a": z[:, :2], "b": z[:, 2]} for z in (x, y)]
    np.testing.assert_allclose(iteration._correlation(*trees), wanted, rtol=1e-5)
    # One place has no correlation, and no further step follows from it.
    assert not iteration._correlation(jnp.ones((4, 2)), jnp.ones((4, 2))) > 0.5


def test_going_on_from_a_state_is_the_same_as_never_stopping(problem):
    options = {"num_chains": 16, "warmup": 4, "thin": 1, "betas": schedules.linear(6)}
    whole = jaxgen.sample(jax.random.key(1), problem.posterior, num_steps=13, **options)
    first = jaxgen.sample(jax.random.key(1), problem.posterior, num_steps=5, **options)
    rest = jaxgen.sample(
        jax.random.key(7), problem.posterior, num_steps=8, state=first.state, **options
    )
    np.testing.assert_array_equal(whole.draws, np.concatenate([first.draws, rest.draws], axis=1))
    np.testing.assert_array_equal(whole.position, rest.position)
    assert np.isnan(rest.log_z)


def test_chunk_size_does_not_matter(problem, monkeypatch):
    options = {"num_chains": 16, "num_steps": 7, "thin": 1, "warmup": 5}
    whole = jaxgen.sample(jax.random.key(2), problem.posterior, **options)
    monkeypatch.setattr(prepare, "_MOST_ITERATIONS", 3)
    parts = jaxgen.sample(jax.random.key(2), problem.posterior, **options)
    np.testing.assert_array_equal(whole.draws, parts.draws)
    np.testing.assert_array_equal(whole.history.beta, parts.history.beta)
    assert whole.log_z == parts.log_z


def test_thinning_keeps_every_kth_draw(problem):
    options = {"num_chains": 16, "warmup": 4, "betas": schedules.linear(6)}
    every = jaxgen.sample(jax.random.key(1), problem.posterior, num_steps=7, thin=1, **options)
    third = jaxgen.sample(jax.random.key(1), problem.posterior, num_steps=7, thin=3, **options)
    np.testing.assert_array_equal(third.draws, every.draws[:, 2::3])
    np.testing.assert_array_equal(third.position, every.position)


def norms(path, chain):
    return {"norm": jnp.linalg.norm(chain.position), "loglik": chain.tilt}


@pytest.mark.slow
def test_collect_keeps_what_it_is_told(problem):
    options = {"num_chains": 8, "num_steps": 4, "thin": 2, "betas": schedules.linear(6)}
    plain = jaxgen.sample(jax.random.key(1), problem.posterior, **options)
    kept = jaxgen.sample(jax.random.key(1), problem.posterior, collect=norms, **options)
    assert kept.draws["norm"].shape == (8, 2)
    np.testing.assert_allclose(kept.draws["norm"], np.linalg.norm(plain.draws, axis=-1), rtol=1e-5)
    nothing = jaxgen.sample(jax.random.key(1), problem.posterior, collect=None, **options)
    assert nothing.draws is None
    np.testing.assert_array_equal(nothing.position, plain.position)
    both = jaxgen.sample(jax.random.key(1), problem.posterior, collect=jaxgen.images, **options)
    assert both.draws["image"].shape == (8, 2, 4, 1, 1)


def test_progress_is_told_of_every_phase(problem):
    seen = []
    jaxgen.sample(
        jax.random.key(1),
        problem.posterior,
        num_chains=8,
        betas=schedules.linear(25),
        num_steps=4,
        progress=seen.append,
    )
    assert [p.phase for p in seen if p.phase != "anneal"] == ["warm-up", "draw"]
    annealing = [p.done for p in seen if p.phase == "anneal"]
    assert annealing == sorted(set(annealing))
    assert annealing[-1] == 25
    assert seen[0].total == 25
    assert seen[-1].beta == 1.0
    assert all(np.isfinite(p.step_size) and 0 <= p.acceptance_rate <= 1 for p in seen)


class Generator(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(3, 16, rngs=rngs)

    def __call__(self, z):
        return nnx.sigmoid(self.layer(z)).reshape(*z.shape[:-1], 4, 4, 1)


class Classifier(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, image):
        return self.layer(image.reshape(*image.shape[:-3], 16))


def test_labels_masks_observations_and_weights_compile_once():
    """One compilation over 10 classes x 3 masks x 2 sets of weights."""
    jax.clear_caches()
    rng = np.random.default_rng(0)
    for weights in range(2):
        generator = jaxgen.freeze(Generator(nnx.Rngs(weights)))
        classifier = jaxgen.freeze(Classifier(nnx.Rngs(weights + 5)))
        for mask_number in range(3):
            mask = jnp.asarray(rng.uniform(size=(4, 4)) < 0.5, jnp.float32).at[0, 0].set(1)
            observed = jnp.asarray(rng.uniform(size=(4, 4, 1)), jnp.float32)
            for label in range(10) if mask_number == 0 else (1, 7):
                posterior = jaxgen.Posterior(
                    jaxgen.Gaussian.standard(3),
                    generator,
                    jaxgen.ClassLogSoftmax(classifier, label)
                    + jaxgen.ObservedPixels(observed, mask, 0.2 + 0.1 * weights),
                )
                jaxgen.sample(jax.random.key(label), posterior, num_chains=4, num_steps=2, warmup=2)
    for program in (
        engine.blank_state,
        engine.init_stage,
        engine.advance_in_place,
        engine.finish_annealing,
        engine.finish_warm_up,
    ):
        assert program._cache_size() == 1, program


def test_schedules_of_one_length_and_step_sizes_compile_once(problem):
    jax.clear_caches()
    for betas in (schedules.linear(6), schedules.geometric(6), schedules.sigmoid(6)):
        for step_size in (0.1, 0.2):
            jaxgen.ais(
                jax.random.key(0),
                problem.posterior,
                kernels.MALA(),
                betas,
                num_chains=4,
                step_size=step_size,
            )
    assert engine.advance_in_place._cache_size() == 1


def test_state_of_another_size_is_refused(problem, result):
    with pytest.raises(InputError, match="state: expected 3 chains"):
        jaxgen.sample(jax.random.key(0), problem.posterior, num_chains=3, state=result.state)


def test_state_of_another_target_is_refused(problem, result):
    other = LinearGaussian(4, noise=0.3, seed=4).posterior
    with pytest.raises(InputError, match="state: expected chains of this very target"):
        jaxgen.sample(jax.random.key(0), other, num_chains=400, state=result.state)
    wider = jaxgen.Posterior(
        jaxgen.Gaussian(jnp.zeros(4), jnp.full(4, 2.0)),
        problem.posterior.generator,
        problem.posterior.condition,
    )
    with pytest.raises(InputError, match="state: expected chains of this very target"):
        jaxgen.sample(jax.random.key(0), wider, num_chains=400, state=result.state)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_steps": -1}, "num_steps: expected an integer of at least 0"),
        ({"thin": 0}, "thin"),
        ({"warmup": 1.5}, "warmup"),
    ],
)
def test_bad_counts_are_refused(problem, options, words):
    with pytest.raises(InputError, match=words):
        jaxgen.sample(jax.random.key(0), problem.posterior, num_chains=4, **options)


def test_clipped_draws_say_so(problem):
    result = jaxgen.sample(
        jax.random.key(0),
        problem.posterior,
        kernels.Clipped(kernels.MALA(), -1.0, 1.0),
        num_chains=8,
        num_steps=2,
    )
    assert result.exactness == "clipped"
    assert np.isnan(result.log_z)
    assert any("heuristic" in note for note in result.notes)
    assert np.abs(result.draws).max() <= 1.0


def test_words_for_the_defaults_and_a_line_of_progress(capsys):
    target = LinearGaussian(3, noise=0.5, seed=2).posterior
    options = {"num_chains": 16, "num_steps": 4, "warmup": 2}
    plain = jaxgen.sample(7, target, **options)
    words = jaxgen.sample(
        jax.random.PRNGKey(7), target, betas="adaptive", step_size="auto", progress=True, **options
    )
    assert words.log_z == plain.log_z
    lines = capsys.readouterr().err
    assert lines.endswith("\n")
    assert "draw: 4 of 4 steps, beta 1, acceptance" in lines
    for name in ("betas", "step_size"):
        with pytest.raises(InputError, match=f"{name}: expected .* got 'fast'"):
            jaxgen.sample(7, target, **{name: "fast"})
