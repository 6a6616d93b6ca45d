"""Hand-designed image priors: total variation, Gaussian blur, jitter, centre bias, L2 decay.

Each prior is a condition: a frozen pytree that maps ONE image `[H, W, channels]` to a
scalar, its contribution to a log density. It is a penalty, hence never positive. It adds
to the others, `ClassLogSoftmax(...) + TotalVariation(0.1)`; as a prior that annealing
must not switch off, `TotalVariation(0.1).untempered()`. Penalties are sums over pixels
and channels, as a log density is, so twice the side makes four times the penalty.

They are the `r(x)` of the update `x' = r(x) + d log p(y|x)/dx + noise` of Nguyen et al.,
"Plug & Play Generative Networks" (CVPR 2017), Eq. 17 of its supplement. There r is an
operator; as terms of a log density the same ideas can also be sampled, not only climbed.
`gaussian_blur` and `Jitter` are the operators.

Floating-point settings are checked when an object is built, integers and arrays by
`check`, which whoever runs a posterior calls before tracing. What JAX puts into a pytree's
fields passes: gradients and axis specifications of a regulariser are regularisers too.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.deprecation import former_names
from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree, static
from jaxgen.core.types import Array, PRNGKey, Scalar
from jaxgen.target.conditions import Condition
from jaxgen.target.conditions.blur import gaussian_window, separable
from jaxgen.target.conditions.precision import like

__all__ = [
    "BlurPenalty",
    "CentreBias",
    "Jitter",
    "L2Decay",
    "TotalVariation",
    "gaussian_blur",
]

__getattr__ = former_names(__name__, {"GaussianBlur": "BlurPenalty"})


@pytree
class TotalVariation(Condition):
    """Smoothed isotropic total variation.

    `-weight * sum_{h,w,c} (sqrt(dx^2 + dy^2 + eps^2) - eps)`, with forward differences
    `dx`, `dy` that are zero past the last column and row. A constant image scores 0.

    Source: Rudin, Osher & Fatemi, "Nonlinear total variation based noise removal
    algorithms" (1992); as an image prior for inverting networks, Mahendran & Vedaldi
    (CVPR 2015), Eq. 4.

    Attributes:
      weight: strength, at least 0.
      eps: the difference, in units of the pixels, below which the penalty is quadratic
        rather than linear; above 0, so that the gradient exists everywhere.
    """

    weight: Scalar
    eps: Scalar = 1e-3

    def __post_init__(self) -> None:
        _check_early("weight", self.weight)
        _check_early("eps", self.eps, positive=True)

    def __call__(self, image: Array) -> Array:
        """Return the penalty of one image `[H, W, channels]`."""
        image = _image(image)
        down = jnp.pad(jnp.diff(image, axis=0), ((0, 1), (0, 0), (0, 0)))
        right = jnp.pad(jnp.diff(image, axis=1), ((0, 0), (0, 1), (0, 0)))
        square = down**2 + right**2
        # sqrt(s + eps^2) - eps, written so that small differences do not cancel.
        eps = like(self.eps, image)
        return -like(self.weight, image) * jnp.sum(square / (jnp.sqrt(square + eps**2) + eps))

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check that the weight is at least 0 and eps above 0."""
        _check("weight", self.weight)
        _check("eps", self.eps, positive=True)
        _check_shape(image_shape)


@pytree
class BlurPenalty(Condition):
    """Distance to one's own blurred image: `-weight * ||x - blur_sigma(x)||^2`.

    It takes energy from the high frequencies only. Source: the blur of Yosinski et al.,
    "Understanding neural networks through deep visualization" (2015), and of Nguyen et
    al. (CVPR 2017, supplement Eq. 17), who apply it as an operator between steps
    (`gaussian_blur`); this is the penalty whose gradient step moves towards that operator.

    Attributes:
      weight: strength, at least 0.
      sigma: the blur's standard deviation in pixels, at least 0 (static: a new one
        compiles again, because it sets the size of the window).
    """

    weight: Scalar
    sigma: float = static(default=1.0)

    def __post_init__(self) -> None:
        _check_early("weight", self.weight)
        _check("sigma", self.sigma)

    def __call__(self, image: Array) -> Array:
        """Return the penalty of one image `[H, W, channels]`."""
        image = _image(image)
        return -like(self.weight, image) * jnp.sum((image - gaussian_blur(image, self.sigma)) ** 2)

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Weight and sigma must be at least 0, sigma no wider than the image."""
        _check("weight", self.weight)
        _check("sigma", self.sigma)
        _check_shape(image_shape)
        _check_blur(self.sigma, image_shape)


@pytree
class CentreBias(Condition):
    """Energy away from the centre.

    `-weight * sum_{h,w,c} (1 - exp(-r^2 / (2 sigma^2))) (x - mean)^2`

    `r` is the distance of a pixel's centre from the image's centre in units of half the
    height and half the width, so that the middle of each edge has `r` of about 1.

    Source: the centre-biased regularisation that Nguyen et al. (CVPR 2017, supplement)
    list among the hand-designed priors. They bias where the gradient acts; this is a
    penalty in the same spirit, not their operator.

    Attributes:
      weight: strength, at least 0.
      sigma: width of the free region in the middle, in half-sizes, above 0.
      mean: the value that has no energy: a scalar, `[channels]` or `[H, W, channels]`.
    """

    weight: Scalar
    sigma: Scalar = 0.5
    mean: Scalar = 0.5

    def __post_init__(self) -> None:
        _check_early("weight", self.weight)
        _check_early("sigma", self.sigma, positive=True)

    def __call__(self, image: Array) -> Array:
        """Return the penalty of one image `[H, W, channels]`."""
        image = _image(image)
        height, width, _ = image.shape
        y = (jnp.arange(height, dtype=image.dtype) - (height - 1) / 2) / (height / 2)
        x = (jnp.arange(width, dtype=image.dtype) - (width - 1) / 2) / (width / 2)
        radius2 = y[:, None, None] ** 2 + x[None, :, None] ** 2
        outside = -jnp.expm1(-radius2 / (2 * like(self.sigma, image) ** 2))
        return -like(self.weight, image) * jnp.sum(outside * _centred(image, self.mean) ** 2)

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check that the weight is at least 0, sigma above 0, and that the mean fits the image."""
        _check("weight", self.weight)
        _check("sigma", self.sigma, positive=True)
        _check_mean(self.mean, image_shape)


@pytree
class L2Decay(Condition):
    """A Gaussian on pixels, unnormalised: `-weight * ||x - mean||^2`.

    `weight = 1 / (2 sigma^2)` for a standard deviation of sigma. A gradient step of size
    1 multiplies `x - mean` by `1 - 2 weight`: the decay `1 - lambda` of Nguyen et al.
    (CVPR 2017, supplement Eq. 14) and of Simonyan et al. (2013) has `weight = lambda / 2`.

    Attributes:
      weight: strength, at least 0.
      mean: the value to decay to: a scalar, `[channels]` or `[H, W, channels]`.
    """

    weight: Scalar
    mean: Scalar = 0.5

    def __post_init__(self) -> None:
        _check_early("weight", self.weight)

    def __call__(self, image: Array) -> Array:
        """Return the penalty of one image `[H, W, channels]`."""
        return -like(self.weight, image) * jnp.sum(_centred(_image(image), self.mean) ** 2)

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check that the weight is at least 0 and the mean fits the image."""
        _check("weight", self.weight)
        _check_mean(self.mean, image_shape)


@pytree
class Jitter:
    """A random circular shift of the image: a transformation, not a log density.

    Both offsets are uniform on `-max_shift .. max_shift` pixels. A target seen through a
    fresh shift at every step is **stochastic**: no accept step can be computed for it and
    no sampler is exact on it. Use it for ascent only.

    Source: Mordvintsev, Olah & Tyka, "Inceptionism" (2015); listed among the
    hand-designed priors by Nguyen et al. (CVPR 2017, supplement).

    Attributes:
      max_shift: largest shift in whole pixels, at least 0 (static).
    """

    max_shift: int = static(default=4)

    def __post_init__(self) -> None:
        if not isinstance(self.max_shift, int) or self.max_shift < 0:
            raise expected("max_shift", "a whole number of pixels, at least 0", self.max_shift)

    def apply(self, key: PRNGKey, image: Array) -> Array:
        """One image `[H, W, channels]`, shifted around its borders; the key is consumed."""
        shift = jax.random.randint(key, (2,), -self.max_shift, self.max_shift + 1)
        return jnp.roll(_image(image), shift, axis=(0, 1))


def gaussian_blur(image: Array, sigma: float) -> Array:
    """Gaussian blur of one image: the operator `r(x)` of PPGN's Eq. 17.

    Separable, cut at 4 sigma, with the border mirrored about the edge of the last pixel
    (the defaults of `scipy.ndimage.gaussian_filter`). Constant images are left alone.

    Args:
      image: `[H, W, channels]`.
      sigma: standard deviation in pixels, a Python number from 0 to the longer side.

    Raises:
      InputError: if the image is not `[H, W, channels]` or sigma is out of range.
    """
    image = _image(image)
    _check_blur(sigma, image.shape)
    radius = int(4.0 * sigma + 0.5)
    if radius == 0:
        return image
    window = jnp.asarray(gaussian_window(sigma, radius), image.dtype)
    return separable(image, window, "symmetric")


def _image(image: Array) -> Array:
    """Return the argument as an array; raise `InputError` unless it has the shape of one image."""
    image = jnp.asarray(image)
    _check_shape(image.shape)
    return image


def _centred(image: Array, mean: Scalar) -> Array:
    """`image - mean`, the mean broadcast explicitly."""
    return image - jnp.broadcast_to(jnp.asarray(mean, image.dtype), image.shape)


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise expected("image", "one image [H, W, channels]", f"shape {shape}", "Use jax.vmap.")


def _check_blur(sigma: float, shape: tuple[int, ...]) -> None:
    _check("sigma", sigma)
    side = max(shape[:2])
    if sigma > side:
        raise expected("sigma", f"at most the longer side, {side} px", sigma)


def _check_mean(mean: Scalar, shape: tuple[int, ...]) -> None:
    _check_shape(shape)
    if np.shape(mean) not in ((), shape[-1:], shape) or not np.all(np.isfinite(mean)):
        raise expected("mean", f"a finite number, {shape[-1:]} or {shape} of them", mean)


def _check_early(name: str, value: object, *, positive: bool = False) -> None:
    """Refuse a bad float; an integer may be an axis specification, an array a gradient."""
    if isinstance(value, float | np.floating):
        _check(name, value, positive=positive)


def _check(name: str, value: object, *, positive: bool = False) -> None:
    """Refuse numbers or arrays that are negative (or 0, if they must be positive) or NaN."""
    values = np.asarray(value)
    if not np.all(np.isfinite(values) & (values > 0 if positive else values >= 0)):
        wanted = "a finite number above 0" if positive else "a finite number, at least 0"
        raise expected(name, wanted, value)
