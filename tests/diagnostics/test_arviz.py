"""Results in ArviZ: groups, numbers, files, and ArviZ's own functions on them."""

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import jaxgen
from jaxgen import InputError
from jaxgen.diagnostics import effective_sizes, split_rhat
from jaxgen.diagnostics.arviz import to_arviz
from tests.toys import LinearGaussian, RowImage

# What ArviZ 0.x says of its future, and of figures, is not ours to mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


NEW = int(arviz.__version__.split(".")[0]) >= 1


def groups(data):
    """Names of groups, of an `InferenceData` or a `DataTree`."""
    return {name.strip("/") for name in data.groups} - {""} if NEW else set(data.groups())


@pytest.fixture(scope="module")
def toy():
    return LinearGaussian(3)


@pytest.fixture(scope="module")
def result(toy):
    return jaxgen.sample(
        jax.random.key(0), toy.posterior, num_chains=16, num_steps=40, num_mcmc_steps=1, warmup=5
    )


@pytest.fixture(scope="module")
def data(result, toy):
    return to_arviz(result, toy.posterior, prior_draws=50)


def test_groups_hold_what_the_run_knows(data, result, toy):
    assert groups(data) == {
        "posterior",
        "sample_stats",
        "log_likelihood",
        "observed_data",
        "constant_data",
        "prior",
    }
    z = data.posterior["z"]
    assert z.dims == ("chain", "draw", "z_dim_0")
    np.testing.assert_array_equal(z, result.draws)
    np.testing.assert_allclose(data.sample_stats["acceptance_rate"][:, 0], result.acceptance_rate)
    assert not data.sample_stats["diverging"].any()
    np.testing.assert_allclose(data.observed_data["observed"][:, 0, 0], toy.y, rtol=1e-6)
    assert float(data.constant_data["noise"]) == toy.noise
    np.testing.assert_array_equal(data.constant_data["history_beta"], result.history.beta)
    assert data.prior["z"].shape == (1, 50, 3)


def test_densities_are_those_of_the_posterior(data, toy):
    z = np.asarray(data.posterior["z"][3, 7], np.float64)
    prior = -0.5 * z @ z - 1.5 * np.log(2 * np.pi)
    rest = toy.y - toy.a @ z - toy.b
    likelihood = -0.5 * rest @ rest / toy.noise**2 - 3 * np.log(toy.noise * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(data.log_likelihood["condition"][3, 7], likelihood, rtol=1e-4)
    np.testing.assert_allclose(data.sample_stats["lp"][3, 7], prior + likelihood, rtol=1e-4)


def test_attributes_say_what_the_run_was(data, result):
    for attrs in (data.attrs, data.posterior.attrs):
        assert attrs["inference_library_version"] == jaxgen.__version__
        assert attrs["exactness"] == result.exactness
        assert attrs["log_z"] == result.log_z


def test_arviz_can_use_it(data, result):
    import matplotlib

    matplotlib.use("Agg")
    assert isinstance(data, xarray.DataTree if NEW else arviz.InferenceData)
    table = arviz.summary(data, round_to="none")
    assert list(table.index) == ["z[0]", "z[1]", "z[2]"]
    np.testing.assert_allclose(table["r_hat"], split_rhat(result.draws), rtol=1e-3)
    np.testing.assert_allclose(table["ess_bulk"], effective_sizes(result.draws).bulk, rtol=0.15)
    axes = arviz.plot_trace(data)
    assert NEW or axes.shape == (1, 2)
    matplotlib.pyplot.close("all")
    assert float(arviz.hdi(data)["z"][0, 0]) < float(arviz.hdi(data)["z"][0, 1])


def test_files_give_back_the_same(data, result, tmp_path):
    file = tmp_path / "run.nc"
    data.to_netcdf(str(file), engine="h5netcdf")
    again = arviz.from_netcdf(str(file), engine="h5netcdf")
    assert groups(again) == groups(data)
    np.testing.assert_array_equal(again.posterior["z"], result.draws)
    assert again.attrs["log_z"] == result.log_z
    pytest.importorskip("zarr", reason="needs zarr")
    tree = data if NEW else data.to_datatree()
    tree.to_zarr(str(tmp_path / "run.zarr"))
    with xarray.open_datatree(str(tmp_path / "run.zarr"), engine="zarr") as again:
        np.testing.assert_array_equal(again["posterior"]["z"], result.draws)


@pytest.mark.skipif(NEW, reason="this ArviZ is a newer one")
def test_newer_arviz_gets_a_tree(result, toy, monkeypatch):
    monkeypatch.setattr(arviz, "__version__", "1.2.0")
    tree = to_arviz(result, toy.posterior, prior_draws=0)
    assert isinstance(tree, xarray.DataTree)
    assert "prior" not in tree
    np.testing.assert_array_equal(tree["posterior"]["z"], result.draws)
    assert tree.attrs["exactness"] == "exact"


def test_without_a_posterior_and_with_images(result):
    assert groups(to_arviz(result)) == {"posterior", "sample_stats", "constant_data"}
    images = np.zeros((*result.draws.shape[:2], 2, 2, 1))
    kept = result._replace(draws={"position": {"a": result.draws, "b": images}, "image": images})
    made = to_arviz(kept).posterior
    assert set(made.data_vars) == {"z_a", "z_b", "image"}
    assert made["image"].dims[2:] == ("image_row", "image_column", "image_channel")


def test_a_result_without_draws_is_refused(result):
    with pytest.raises(InputError, match=r"collect=jaxgen\.positions"):
        to_arviz(result._replace(draws=None))
    with pytest.raises(InputError, match=r"result.draws: z: expected shape \[16, S"):
        to_arviz(result._replace(draws=jnp.zeros((3, 4, 5))))


def test_a_mask_and_a_label_are_constants(result):
    seen = jaxgen.ObservedPixels(jnp.full((1, 3, 1), 0.5), jnp.ones((1, 3)), 0.2)
    posterior = jaxgen.Posterior(jaxgen.Gaussian.standard(3), RowImage(), seen)
    made = to_arviz(result, posterior, prior_draws=0)
    assert made.constant_data["mask"].shape == (1, 3)
    assert float(made.constant_data["noise"]) == pytest.approx(0.2)
