"""The forms of the convolutions against each other, PyTorch's definition and vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgen.core.errors import InputError
from jaxgen.models.conv.layers import Conv, ConvTranspose, conv, conv_transpose, upsample_conv

# kernel, stride, padding: those the shipped networks use first, then awkward ones.
CASES = [
    (4, 2, 1),
    (3, 1, 1),
    (5, 2, 2),
    (3, 2, 1),
    (1, 1, 0),
    (1, 2, 0),
    (4, 1, 0),
    (7, 4, 2),
    ((3, 4), (1, 2), ((1, 0), (2, 1))),
]


def arrays(kernel, channels=3, features=5, shape=(2, 9, 8)):
    kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
    x_key, w_key = jax.random.split(jax.random.key(0))
    x = jax.random.normal(x_key, (*shape, channels))
    w = jax.random.normal(w_key, (kh, kw, channels, features)) / np.sqrt(kh * kw * channels)
    return x, w


@pytest.mark.parametrize("function", [conv, conv_transpose])
@pytest.mark.parametrize(("kernel", "stride", "padding"), CASES)
def test_forms_agree_in_value_and_input_gradient(function, kernel, stride, padding):
    x, w = arrays(kernel)

    def both(form):
        def value(x):
            y = function(x, w, stride=stride, padding=padding, form=form)
            return jnp.sum(jnp.sin(y)), y

        gradient, y = jax.jit(jax.grad(value, has_aux=True))(x)
        return y, gradient

    for got, wanted in zip(both("matmul"), both("xla"), strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, atol=1e-5)


# Function, side of the kernel, stride: what minimal filtering can do.
SCHEMES = [(conv, 3, 1), (conv, 4, 2), (conv_transpose, 4, 2), (upsample_conv, 3, None)]


def call(function, stride, form):
    """The function with padding 1, or the upsampled one, which has no settings."""
    if function is upsample_conv:
        return lambda x, w: upsample_conv(x, w, form=form)
    return lambda x, w: function(x, w, stride=stride, padding=1, form=form)


@pytest.mark.parametrize(("function", "kernel", "stride"), SCHEMES)
@pytest.mark.parametrize("sides", [(6, 8), (7, 5)])
def test_fewer_products_in_value_and_both_gradients(function, kernel, stride, sides):
    x, w = arrays(kernel, shape=(2, *sides))

    def all_three(form):
        def value(x, w):
            y = call(function, stride, form)(x, w)
            return jnp.sum(jnp.sin(y)), y

        gradients, y = jax.jit(jax.grad(value, (0, 1), has_aux=True))(x, w)
        return y, *gradients

    for got, wanted in zip(all_three("winograd"), all_three("xla"), strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, atol=2e-5)


@pytest.mark.parametrize(("function", "kernel", "stride"), SCHEMES)
def test_fewer_products_vmapped_and_differentiated_twice(function, kernel, stride):
    x, w = arrays(kernel, 2, 3, (2, 4, 4))

    def curvature(form):
        """A Hessian-vector product of each chain, forward over reverse."""
        gradient = jax.grad(lambda x: jnp.sum(jnp.sin(call(function, stride, form)(x, w))))
        return jax.jit(jax.vmap(lambda x: jax.jvp(gradient, (x,), (jnp.ones_like(x),))[1]))(x)

    np.testing.assert_allclose(curvature("winograd"), curvature("xla"), atol=1e-4)


@pytest.mark.parametrize(("function", "kernel", "stride"), SCHEMES)
def test_auto_takes_fewer_products_for_many_channels(function, kernel, stride):
    def products(channels, sides=(4, 4)):
        x, w = arrays(kernel, channels, channels, (1, *sides))
        text = jax.jit(call(function, stride, "auto")).lower(x, w).as_text()
        assert "convolution" not in text
        return text.count("dot_general")

    assert products(3) == 1
    assert products(64) == {3: 16, 4: 25}[kernel] if function is not upsample_conv else 9
    x, w = arrays(kernel, 64, 64, (2, 4, 6))
    got, wanted = (jax.jit(call(function, stride, form))(x, w) for form in ("auto", "xla"))
    np.testing.assert_allclose(got, wanted, atol=2e-5)


@pytest.mark.parametrize("form", ["auto", "matmul", "winograd", "xla"])
def test_upsampling_by_its_definition(form):
    x, w = arrays(3, shape=(2, 3, 4))

    def plain(x, w):
        doubled = jnp.repeat(jnp.repeat(x, 2, axis=-3), 2, axis=-2)
        return conv(doubled, w, padding=1, form="xla")

    def both(function):
        def value(x, w):
            y = function(x, w)
            return jnp.sum(jnp.sin(y)), y

        gradients, y = jax.jit(jax.grad(value, (0, 1), has_aux=True))(x, w)
        return y, *gradients

    identity = both(lambda x, w: upsample_conv(x, w, form=form))
    for got, wanted in zip(identity, both(plain), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_upsampling_wants_three_taps():
    with pytest.raises(InputError, match="kernel"):
        upsample_conv(*arrays(4))


@pytest.mark.parametrize("form", ["matmul", "xla"])
@pytest.mark.parametrize("padding", [0, 1])
def test_transposed_convolution_of_one_pixel(form, padding):
    x, w = arrays(4, shape=(2, 1, 1))
    got = jax.jit(lambda x, w: conv_transpose(x, w, padding=padding, form=form))(x, w)
    taps = np.asarray(w)[::-1, ::-1][padding : 4 - padding, padding : 4 - padding]
    np.testing.assert_allclose(got, np.einsum("nc,abcf->nabf", x[:, 0, 0], taps), atol=1e-5)


@pytest.mark.parametrize("function", [conv, conv_transpose])
def test_the_same_tile_gives_the_same_bits(function):
    x, w = arrays(4, 32, 32, (6, 4, 4))

    @jax.jit
    def tiled(x):
        one = jax.vmap(lambda x: function(x, w, stride=2, padding=1))
        return jax.lax.map(one, x.reshape(-1, 2, *x.shape[1:])).reshape(len(x), -1)

    np.testing.assert_array_equal(tiled(x)[:2], tiled(x[:2]))


@pytest.mark.parametrize("form", ["matmul", "xla"])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(4, 2, 1), (3, 1, 1), (3, 2, 0)])
def test_definitions_by_loops(form, kernel, stride, padding):
    x, w = arrays(kernel, 2, 3, (4, 5))
    x64, w64 = np.asarray(x, np.float64), np.asarray(w, np.float64)
    h, width = 4, 5

    padded = np.pad(x64, ((padding, padding), (padding, padding), (0, 0)))
    oh, ow = ((n + 2 * padding - kernel) // stride + 1 for n in (h, width))
    wanted = np.zeros((oh, ow, 3))
    for i in range(oh):
        for j in range(ow):
            window = padded[i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            wanted[i, j] = np.tensordot(window, w64, 3)
    options = {"stride": stride, "padding": padding, "form": form}
    got = jax.jit(lambda x, w: conv(x, w, **options))(x, w)
    np.testing.assert_allclose(got, wanted, atol=1e-5)

    taps = w64[::-1, ::-1]
    full = np.zeros(((h - 1) * stride + kernel, (width - 1) * stride + kernel, 3))
    for i in range(h):
        for j in range(width):
            for a in range(kernel):
                for b in range(kernel):
                    full[i * stride + a, j * stride + b] += x64[i, j] @ taps[a, b]
    rows, cols = full.shape[0] - padding, full.shape[1] - padding
    got = jax.jit(lambda x, w: conv_transpose(x, w, **options))(x, w)
    np.testing.assert_allclose(got, full[padding:rows, padding:cols], atol=1e-5)


@pytest.mark.parametrize("form", ["matmul", "xla"])
def test_groups(form):
    x, _ = arrays(3, channels=4)
    _, w = arrays(3, channels=2, features=6)
    one = jax.jit(lambda x, w: conv(x, w, padding=1, form=form))
    got = jax.jit(lambda x, w: conv(x, w, padding=1, groups=2, form=form))(x, w)
    halves = [one(x[..., 2 * g : 2 * g + 2], w[..., 3 * g : 3 * g + 3]) for g in range(2)]
    np.testing.assert_allclose(got, jnp.concatenate(halves, axis=-1), atol=1e-5)


@pytest.mark.parametrize("function", [conv, conv_transpose])
def test_one_sample_a_batch_and_vmap_are_the_same(function):
    x, w = arrays(4)

    @jax.jit
    def apply(x):
        return function(x, w, stride=2, padding=1, form="matmul")

    batch = apply(x)
    np.testing.assert_allclose(jax.jit(jax.vmap(apply))(x), batch, atol=1e-6)
    np.testing.assert_allclose(apply(x[0]), batch[0], atol=1e-6)
    np.testing.assert_allclose(apply(x[None, None])[0, 0], batch, atol=1e-6)


@pytest.mark.parametrize("function", [conv, conv_transpose])
def test_vmap_stays_one_product(function):
    x, w = arrays(4)
    mapped = jax.vmap(lambda x: function(x, w, stride=2, padding=1, form="matmul"))
    text = jax.jit(mapped).lower(x).as_text()
    assert text.count("dot_general") == 1
    assert "convolution" not in text


def test_transpose_layer_reads_flax_kernels():
    ours = ConvTranspose(3, 5, 4, stride=2, padding=1, rngs=nnx.Rngs(0))
    theirs = nnx.ConvTranspose(3, 5, (4, 4), (2, 2), padding="SAME", rngs=nnx.Rngs(1))
    theirs.kernel[...] = ours.kernel[...]
    x, _ = arrays(4)
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)


def test_conv_layer_reads_flax_kernels():
    ours = Conv(4, 6, 3, stride=2, padding=1, groups=2, rngs=nnx.Rngs(0))
    theirs = nnx.Conv(
        4, 6, (3, 3), (2, 2), padding=((1, 1), (1, 1)), feature_group_count=2, rngs=nnx.Rngs(1)
    )
    ours.bias = nnx.Param(jnp.arange(6.0))
    theirs.kernel[...], theirs.bias = ours.kernel[...], nnx.Param(jnp.arange(6.0))
    x, _ = arrays(3, channels=4)
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)


def test_unknown_form():
    x, w = arrays(3)
    with pytest.raises(InputError, match="form"):
        conv(x, w, form="fft")  # type: ignore[arg-type]
