"""Progressive GAN, StyleGAN2 and BigGAN-deep against references in torch, random weights."""

import jax
import numpy as np
import pytest

from jaxgen.core.errors import InputError
from weights_convert.pytorch import convert_state, verify
from weights_convert.recipes.biggan import at_truncation, without_spectral_norm

torch = pytest.importorskip("torch", reason="compares with torch: pip install torch")
torch.set_num_threads(1)

BIGGAN = {
    "layers": [[0, 32, 32], [1, 32, 16], [0, 16, 16], [1, 16, 8]],
    "width": 8, "attention": 2, "latent": 6, "classes": 4, "label": 3, "epsilon": 1e-4,
    "truncation": 0.43,
}  # fmt: skip


def reference(name):
    from weights_convert import reference_gans

    return {
        "progan": lambda: reference_gans.progan(12, [16, 16, 12], 3),
        "stylegan2": lambda: reference_gans.stylegan2(10, 12, 2, [16, 12, 8]),
        "biggan-deep": lambda: reference_gans.biggan_deep(BIGGAN),
    }[name]()


OPTIONS = {"biggan-deep": {"truncation": 0.43, "label": 3}}


def random_arrays(module, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, value in module.state_dict().items():
        array = rng.normal(size=value.shape)
        if name.endswith(("running_vars", "running_var")):
            array = 0.5 + np.abs(array)
        elif name.endswith(("_u", "_v")):
            array = np.abs(array) / np.linalg.norm(array)
        elif name.endswith("weight_orig"):
            array = 1.0 + array  # so that u . W v is far from zero
        arrays[name] = array.astype("f4")
    return arrays


@pytest.mark.parametrize("recipe", ["progan", "stylegan2", "biggan-deep"])
def test_every_layer_and_one_sample_like_a_batch(recipe):
    state = random_arrays(reference(recipe))
    done = convert_state(state, recipe, OPTIONS.get(recipe))
    rows = verify(done, batch=3)
    worst = max(rows, key=lambda row: row.error)
    assert worst.error < 1e-5, worst
    assert len(rows) >= 6
    z = np.random.default_rng(1).normal(size=(3, done.config["latent"])).astype("f4")
    run = jax.jit(done.module)
    together, alone = np.asarray(run(z)), np.asarray(run(z[2]))
    assert together.shape[0] == 3
    assert together.shape[-1] == 3
    np.testing.assert_allclose(alone, together[2], rtol=0, atol=1e-5 * np.abs(together).max())


@pytest.mark.parametrize("recipe", ["progan", "stylegan2", "biggan-deep"])
def test_the_gradient_by_the_latent(recipe):
    theirs = reference(recipe)
    state = random_arrays(theirs)
    done = convert_state(state, recipe, OPTIONS.get(recipe))
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    z = np.random.default_rng(1).normal(size=done.config["latent"]).astype("f4")
    ours = np.asarray(jax.jit(jax.grad(lambda z: (done.module(z) ** 2).sum()))(z))
    x = torch.from_numpy(z[None]).requires_grad_()
    ((0.5 * theirs(x) + 0.5) ** 2).sum().backward()
    wanted = x.grad.numpy()[0]
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=2e-4 * np.abs(wanted).max())


def test_biggan_takes_a_label():
    done = convert_state(random_arrays(reference("biggan-deep")), "biggan-deep", {"label": 3})
    z = np.random.default_rng(1).normal(size=6).astype("f4")
    run = jax.jit(lambda z, label: done.module(z, label))
    np.testing.assert_allclose(run(z, np.eye(4, dtype="f4")[3]), jax.jit(done.module)(z), atol=1e-6)
    assert np.abs(run(z, np.eye(4, dtype="f4")[0]) - jax.jit(done.module)(z)).max() > 1e-3


def test_statistics_at_a_truncation():
    table = np.arange(51.0)[:, None].repeat(2, 1).astype("f4")
    np.testing.assert_allclose(at_truncation(table, 1.0), 50.0)
    np.testing.assert_allclose(at_truncation(table, 0.5), 25.0, atol=1e-4)


def test_spectral_norm_is_the_largest_singular_value():
    matrix = np.random.default_rng(0).normal(size=(5, 7)).astype("f4")
    u, s, v = np.linalg.svd(matrix)
    state = {"a.weight_orig": matrix, "a.weight_u": u[:, 0], "a.weight_v": v[0], "b": matrix}
    got = without_spectral_norm(state)
    assert set(got) == {"a.weight", "b"}
    np.testing.assert_allclose(got["a.weight"], matrix / s[0], rtol=1e-5)
    with pytest.raises(InputError, match="do not fit"):
        without_spectral_norm({**state, "a.weight_u": u[:3, 0]})


def test_names_of_other_versions_of_progan():
    state = random_arrays(reference("progan"))
    other = {k.replace(".weight", ".module.weight").replace(".bias", ".module.bias"): v
             for k, v in state.items()}  # fmt: skip
    z = np.ones(12, "f4")
    a, b = (convert_state(s, "progan").module for s in (state, other))
    np.testing.assert_array_equal(jax.jit(a)(z), jax.jit(b)(z))


def test_stylegan2_with_nvidias_names():
    """The same weights under NVIDIA's names, their constants where NVIDIA has them."""
    state = random_arrays(reference("stylegan2"))
    wanted = convert_state(state, "stylegan2")
    other = {"mapping.w_avg": np.zeros(12, "f4")}
    filter_ = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype("f4") / 64

    def put(theirs, ours, noise):
        weight = state[f"{ours}.conv.weight"][0]
        # NVIDIA has no constant before demodulation; put it in to have the same epsilon.
        other[f"{theirs}.weight"] = (
            weight / np.sqrt(weight[0].size) if noise is not None else weight
        )
        other[f"{theirs}.affine.weight"] = state[f"{ours}.conv.modulation.weight"]
        other[f"{theirs}.affine.bias"] = state[f"{ours}.conv.modulation.bias"]
        if noise is None:
            other[f"{theirs}.bias"] = state[f"{ours}.bias"].reshape(-1)
            return
        other[f"{theirs}.bias"] = state[f"{ours}.activate.bias"]
        other[f"{theirs}.noise_const"] = state[f"noises.noise_{noise}"][0, 0]
        other[f"{theirs}.noise_strength"] = state[f"{ours}.noise.weight"].reshape(())
        other[f"{theirs}.resample_filter"] = filter_

    for i in range(2):
        for name in ("weight", "bias"):
            other[f"mapping.fc{i}.{name}"] = state[f"style.{i + 1}.{name}"]
    other["synthesis.b4.const"] = state["input.input"][0]
    put("synthesis.b4.conv1", "conv1", 0)
    put("synthesis.b4.torgb", "to_rgb1", None)
    for i, size in enumerate((8, 16)):
        put(f"synthesis.b{size}.conv0", f"convs.{2 * i}", 2 * i + 1)
        put(f"synthesis.b{size}.conv1", f"convs.{2 * i + 1}", 2 * i + 2)
        put(f"synthesis.b{size}.torgb", f"to_rgbs.{i}", None)
    got = convert_state(other, "stylegan2")
    assert got.config == {**wanted.config, "dialect": "nvidia"}
    z = np.random.default_rng(1).normal(size=10).astype("f4")
    np.testing.assert_allclose(
        jax.jit(got.module)(z), jax.jit(wanted.module)(z), rtol=1e-4, atol=1e-4
    )
    other["synthesis.b8.conv0.resample_filter"] = filter_ + np.eye(4, dtype="f4")
    with pytest.raises(InputError, match="a filter other than"):
        convert_state(other, "stylegan2")


@pytest.mark.parametrize("recipe", ["progan", "stylegan2", "biggan-deep"])
def test_another_network_is_named(recipe):
    with pytest.raises(InputError, match=f"recipe {recipe}: no '"):
        convert_state({"a.weight": np.zeros((2, 2), "f4")}, recipe)
