"""Decoder log likelihoods: against closed forms, quadrature and importance sampling."""

import gzip
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import stats

import jaxgen
from jaxgen import InputError, kernels, schedules
from jaxgen.cli import loglik as command
from jaxgen.cli import main
from jaxgen.core.pytree import pytree
from jaxgen.inference.bdmc import DecoderPaths, simulate
from jaxgen.inference.loglik import importance_loglik, loglik
from jaxgen.target.observations import BernoulliObservation, GaussianObservation
from tests.inference.test_bdmc import NOISE, SIZE, affine, encoder, exact

PRIOR = jaxgen.Gaussian.standard(SIZE)
OBSERVATION = GaussianObservation(NOISE)


@pytest.fixture(scope="module")
def problem():
    generator = affine()
    _, images = simulate(jax.random.key(0), DecoderPaths(PRIOR, generator, OBSERVATION), 6)
    return generator, images, exact(generator, images)


@pytest.mark.slow
def test_from_the_prior_with_a_check(problem):
    generator, images, truth = problem
    calls = []
    result = loglik(
        jax.random.key(1),
        generator,
        images,
        OBSERVATION,
        prior=PRIOR,
        kernel=kernels.HMC(3),
        betas=schedules.linear(30),
        num_chains=64,
        check=6,
        batch=3,
        progress=lambda *done: calls.append(done),
    )
    assert np.all(np.abs(result.log_prob - truth) < 4.5 * result.standard_error)
    assert np.all(result.standard_error < 0.1)
    assert abs(result.mean - truth.mean()) < 4 * result.estimation_error
    want = -result.mean / (SIZE * np.log(2)) + 8
    assert result.bits_per_dimension == pytest.approx(want)
    assert result.mean_standard_error == pytest.approx(result.log_prob.std(ddof=1) / 6**0.5)
    assert abs(result.gap) < 0.2
    assert result.exactness == "exact"
    assert not result.notes
    assert calls[-1] == (60, 60)


def test_from_an_encoder_and_by_importance_sampling(problem):
    generator, images, truth = problem
    q = encoder(generator)
    result = loglik(
        jax.random.key(1),
        generator,
        images,
        OBSERVATION,
        encoder=q,
        kernel=kernels.HMC(3),
        betas=schedules.linear(30),
        num_chains=64,
    )
    assert np.all(np.abs(result.log_prob - truth) < 4.5 * result.standard_error)
    assert np.isnan(result.gap)
    value, error, ess = importance_loglik(
        jax.random.key(2), generator, images, OBSERVATION, q, num_samples=4000
    )
    assert np.all(np.abs(value - truth) < 4.5 * error)
    assert np.all((ess > 100) & (ess < 4000))


@pytest.mark.slow
def test_a_binary_model_against_quadrature():
    @pytree
    class Slope:
        def __call__(self, z):
            return jax.nn.sigmoid(2 * z[0] * jnp.linspace(-1, 1, 6)).reshape(2, 3, 1)

    image = np.array([[0, 0, 1], [0, 1, 1]], np.float32)[..., None]
    z = np.linspace(-8, 8, 4001)
    mean = 1 / (1 + np.exp(-2 * z[:, None] * np.linspace(-1, 1, 6)))
    likelihood = np.prod(np.where(image.ravel() > 0, mean, 1 - mean), 1)
    truth = np.log(np.trapezoid(stats.norm.pdf(z) * likelihood, z))
    settings = {
        "prior": jaxgen.Gaussian.standard(1),
        "kernel": kernels.HMC(3),
        "betas": schedules.linear(20),
        "num_chains": 128,
    }
    key, observation = jax.random.key(0), BernoulliObservation()
    result = loglik(key, Slope(), image[None], observation, **settings)
    assert abs(result.log_prob[0] - truth) < 4 * result.standard_error[0]
    assert result.bits_per_dimension == pytest.approx(-result.mean / (6 * np.log(2)))
    assert np.isnan(result.mean_standard_error)
    assert not result.notes
    grey = loglik(key, Slope(), 0.3 + 0.4 * image[None], observation, **settings)
    assert any("cross entropy" in note for note in grey.notes)


def test_what_cannot_be_used(problem):
    generator, images, _ = problem
    key = jax.random.key(0)
    with pytest.raises(InputError, match="prior: expected a prior"):
        loglik(key, generator, images, OBSERVATION)
    with pytest.raises(InputError, match="images"):
        loglik(key, generator, images[0], OBSERVATION, prior=PRIOR)
    with pytest.raises(InputError, match=r"images: expected \[N, 3, 1, 1\]"):
        loglik(key, generator, images[:, :2], OBSERVATION, prior=PRIOR)
    with pytest.raises(InputError, match="from 0 to 1"):
        loglik(key, generator, images, OBSERVATION, prior=PRIOR, betas=[0.0, 0.5])
    with pytest.raises(InputError, match="noise"):
        loglik(key, generator, images, GaussianObservation(-1.0), prior=PRIOR)


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    out = tmp_path / "run"
    arguments = [
        "loglik",
        "fashion-mnist/vae",
        "example:0-2",
        "--chains",
        "4",
        "--temperatures",
        "10",
        "--leapfrogs",
        "3",
        "--bdmc",
        "3",
        "--quiet",
        "--json",
        "--out",
        str(out),
    ]
    assert main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    saved = json.loads((out / "summary.json").read_text())
    assert printed["mean"] == saved["mean"]
    assert [row["image"] for row in saved["images"]] == ["example 0", "example 1", "example 2"]
    assert saved["mean"] == pytest.approx(np.mean([row["log_prob"] for row in saved["images"]]))
    assert saved["likelihood"] == "bernoulli"
    between = saved["bdmc"]["upper"] - saved["bdmc"]["lower"]
    assert saved["bdmc"]["gap"] == pytest.approx(between, abs=1e-3)
    assert len(saved["models"]) == 2  # its encoder was found
    assert sorted(saved["files"]) == sorted(p.name for p in out.iterdir())
    arrays = load_file(out / "loglik.safetensors")
    assert arrays["position"].shape == (3, 4, 20)
    assert set(np.unique(arrays["image"])) == {0.0, 1.0}
    for i, row in enumerate(saved["images"]):
        weights = arrays["log_weight"][i].astype(np.float64)
        want = np.log(np.mean(np.exp(weights - weights.max()))) + weights.max()
        assert row["log_prob"] == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["nonesuch", "example:0"], "did you mean|expected one of"),
        (["fashion-mnist/cnn", "example:0"], "MODEL: expected a generator"),
        (["fashion-mnist/vae", "example:5-3"], "range that increases"),
        (["fashion-mnist/vae", "example:x"], "example:x"),
        (["fashion-mnist/vae", "example:48-50"], "example:50"),
        (["fashion-mnist/vae", "nowhere.png"], "nowhere.png"),
        (["fashion-mnist/vae", "no-idx3-ubyte.gz:0"], "file that exists"),
        (["fashion-mnist/vae", "example:0", "--sigma", "0.1"], "--likelihood gaussian"),
        (["fashion-mnist/dcgan", "example:0"], "--sigma: expected a standard deviation"),
        (["fashion-mnist/vae", "example:0", "--encoder", "fashion-mnist/cnn"], "encoder; got"),
        (["fashion-mnist/vae", "example:0", "--bdmc", "1"], "--bdmc"),
        (["fashion-mnist/vae", "example:0", "--temperatures", "0"], "--temperatures"),
        (["toy2d/gan", "example:0"], "a generator of images"),
    ],
)
def test_the_command_says_no_in_one_line(arguments, wanted, tmp_path, capsys):
    assert main(["loglik", *arguments, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert re.search(wanted, error, re.IGNORECASE), error
    assert not list(tmp_path.iterdir())


def test_images_of_an_idx_file(tmp_path):
    file = tmp_path / "some-images-idx3-ubyte.gz"
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in pixels.shape)
    file.write_bytes(gzip.compress(head + pixels.tobytes()))
    names, images = command._read([f"{file}:1-3", f"{file}:0"], (28, 28, 1), None)
    assert names[0] == f"{file.name} 1"
    np.testing.assert_allclose(images[:, :, :, 0] * 255, pixels[[1, 2, 3, 0]], atol=1e-4)
    with pytest.raises(InputError, match="0 to 4"):
        command._read([f"{file}:3-5"], (28, 28, 1), None)


def test_binary_images_of_the_command():
    grey = np.array([0.0, 0.2, 0.8, 1.0], np.float32)
    key = jax.random.key(0)
    np.testing.assert_array_equal(command._binary(key, grey, "no"), grey)
    np.testing.assert_array_equal(command._binary(key, grey, "threshold"), [0, 0, 1, 1])
    many = command._binary(key, np.tile(grey, (5000, 1)), "random")
    np.testing.assert_allclose(many.mean(0), grey, atol=0.03)
    assert set(many[:, 0]) == {0}
    assert set(many[:, 3]) == {1}


@pytest.mark.parametrize("from_encoder", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_default_follows_each_image_and_checks_itself(problem, from_encoder):
    generator, images, truth = problem
    calls = []
    result = loglik(
        jax.random.key(1),
        generator,
        images,
        OBSERVATION,
        prior=PRIOR,
        encoder=encoder(generator) if from_encoder else None,
        num_chains=32,
        check=0 if from_encoder else 2,
        progress=lambda *done: calls.append(done),
    )
    assert np.all(np.abs(result.log_prob - truth) < 4.5 * result.standard_error)
    assert np.all(result.standard_error < 0.3)
    assert result.exactness == "adapted"
    assert result.num_gradients < 400
    assert (6, 6) in calls
    if not from_encoder:
        assert abs(result.gap) < 0.3
        np.testing.assert_allclose(result.check.gap, result.gap)
    alone = loglik(
        jax.random.key(1),
        generator,
        images[:1],
        OBSERVATION,
        prior=PRIOR,
        encoder=encoder(generator) if from_encoder else None,
        num_chains=32,
    )
    assert alone.log_prob[0] == result.log_prob[0]
