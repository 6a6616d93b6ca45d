"""Checks of what users compose, made once and before anything is traced."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from numpy.typing import ArrayLike

from jaxgen.core.errors import InputError, expected
from jaxgen.core.names import class_index
from jaxgen.core.pytree import short

__all__ = [
    "blamed",
    "check_floating",
    "check_forward",
    "check_image",
    "check_index",
    "check_label",
    "check_mask",
    "check_noise",
    "check_scalar",
    "outputs_of",
    "seen_pixels",
]

# How many standard deviations of noise lead an observation out of [0, 1].
_NOISE_SLACK = 6.0


def check_mask(mask: Any, image_shape: tuple[int, ...]) -> None:
    """Check that a mask fits the image, and that it shows at least one pixel."""
    shapes = (image_shape, image_shape[:-1], (*image_shape[:-1], 1))
    if np.shape(mask) not in shapes:
        raise expected("mask", f"shape {image_shape[:-1]} like the image", np.shape(mask))
    values = np.asarray(mask)
    if not np.all((values == 0) | (values == 1)):
        raise expected("mask", "0 (hidden) or 1 (observed) everywhere", "other values")
    if not values.any():
        raise expected("mask", "at least one observed pixel", "none")


def seen_pixels(mask: ArrayLike, image_shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask as booleans of the image's shape."""
    seen = np.asarray(mask).astype(bool)
    seen = seen[..., None] if seen.ndim == len(image_shape) - 1 else seen
    return np.broadcast_to(seen, image_shape)


def check_image(
    name: str,
    image: Any,
    shape: tuple[int, ...],
    where: np.ndarray | None = None,
    *,
    noise: Any = 0.0,
) -> None:
    """Check the shape of an observed image and that its pixels lie in [0, 1]."""
    if np.shape(image) != tuple(shape):
        raise expected(name, f"shape {tuple(shape)}", np.shape(image), _layout(image, shape))
    values = np.asarray(image)
    if np.iscomplexobj(values):
        hint = "Operator takes complex observations"
        raise expected(name, "real pixels", f"{values.dtype}", hint)
    # Hidden pixels take no part, but 0 * NaN in a gradient would.
    if not np.all(np.isfinite(values)):
        raise expected(
            name, "finite pixels", f"{int(np.sum(~np.isfinite(values)))} NaN or infinite"
        )
    seen = values if where is None else values[where]
    low, high = float(seen.min()), float(seen.max())
    slack = 1e-3 + _NOISE_SLACK * float(np.max(noise))
    if low < -slack or high > 1 + slack:
        wanted = "pixels in [0, 1]"
        if np.any(np.asarray(noise) > 0):
            wanted += f", up to the noise of {float(np.max(noise)):.3g}"
        hint = "Divide 8-bit images by 255"
        if low >= -1.001 and high <= 1.001:
            hint = "Use (y + 1) / 2, and a generator of images in [0, 1]"
        elif high <= 200:
            hint += ", or use Operator, which takes any range"
        raise expected(name, wanted, f"[{low:.4g}, {high:.4g}]", hint)


def _layout(image: Any, shape: tuple[int, ...]) -> str:
    got = np.shape(image)
    if len(got) == len(shape) + 1 and got[0] == 1:
        return "Take one image: y[0]"
    if len(got) == len(shape) - 1 and got == tuple(shape)[:-1] and shape[-1] == 1:
        return "Add the channel: y[..., None]"
    if len(got) == 3 and (*got[1:], got[0]) == tuple(shape):
        return "Channels come last: numpy.moveaxis(y, 0, -1)"
    return ""


def check_noise(noise: Any, shape: tuple[int, ...] | None = None) -> None:
    """Check that the noise is positive and of a shape that fits."""
    if not np.issubdtype(np.asarray(noise).dtype, np.number) or np.iscomplexobj(noise):
        raise expected("noise", "a positive number", repr(noise)[:40])
    if not (np.all(np.isfinite(noise)) and np.all(np.asarray(noise) > 0)):
        raise expected("noise", "a positive number", short(noise))
    if shape is not None and np.shape(noise) not in ((), tuple(shape)):
        try:
            fits = np.broadcast_shapes(np.shape(noise), shape) == tuple(shape)
        except ValueError:
            fits = False
        if not fits or np.ndim(noise) != len(shape):
            raise expected("noise", f"one number, or shape {tuple(shape)}", np.shape(noise))


def check_index(name: str, index: Any, size: int) -> None:
    """Check that an index is a whole number from 0 to size - 1."""
    if not np.issubdtype(np.asarray(index).dtype, np.integer):
        raise expected(name, f"an integer from 0 to {size - 1}", short(index))
    if np.shape(index) != ():
        raise expected(name, "one integer", f"shape {np.shape(index)}")
    if np.any(np.asarray(index) < 0) or np.any(np.asarray(index) >= size):
        raise expected(name, f"an integer from 0 to {size - 1}", short(index))


def check_label(condition: Any, image_shape: tuple[int, ...]) -> None:
    """Check that the classifier takes the image and the label is one of its classes."""
    if not callable(condition.classifier):
        raise expected("classifier", "a network or its name", type(condition.classifier).__name__)
    out = outputs_of("classifier", condition.classifier, image_shape)
    if len(out.shape) != 1:
        batch = len(out.shape) == 2 and out.shape[0] == 1
        hint = "Drop the batch axis: lambda x: classifier(x[None])[0]" if batch else ""
        raise expected("classifier", "logits of shape [K] for one image", out.shape, hint)
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise expected("classifier", "logits, floating numbers", out.dtype)
    names = getattr(condition.classifier, "classes", ())
    if isinstance(condition.label, str):
        if not names:
            raise expected(
                "label",
                f"an integer from 0 to {out.shape[0] - 1}",
                f"{condition.label!r}, and the classifier's classes have no names",
            )
        class_index(condition.label, names)
    check_index("label", condition.label, out.shape[0])


def check_scalar(name: str, function: object, image_shape: tuple[int, ...]) -> None:
    """Check that the function gives one floating number for one image."""
    out = outputs_of(name, function, image_shape)
    if out.shape != ():
        hint = "Sum over pixels" if len(out.shape) else ""
        raise expected(name, "a function that returns a scalar", f"shape {out.shape}", hint)
    check_floating(name, out.dtype)


def check_floating(name: str, dtype: DTypeLike) -> None:
    """Check that a log likelihood is a real floating number."""
    if jnp.issubdtype(dtype, jnp.floating):
        return
    hint = ""
    if dtype == jnp.bool_:
        hint = "For a constraint, give jnp.where(holds, 0.0, -jnp.inf)"
    elif jnp.issubdtype(dtype, jnp.complexfloating):
        hint = "Take |r|^2 as r.real**2 + r.imag**2"
    raise expected(name, "a floating log likelihood", dtype, hint)


def check_forward(
    name: str, forward: object, arguments: tuple[Any, ...], image_shape: tuple[int, ...]
) -> Any:
    """Return the shape and type of A(x), which must be one array of numbers."""
    if not callable(forward):
        raise expected(f"{name}.forward", "a function of an image", type(forward).__name__)
    return outputs_of(f"{name}.forward", lambda x: forward(x, *arguments), image_shape)


def outputs_of(name: str, function: Any, image_shape: tuple[int, ...]) -> Any:
    """Return what a function gives for one image, as a shape; nothing is computed.

    Raises:
      InputError: that names the function, whatever it said of an image.
    """
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    try:
        # JAX prints a callable object that it is to trace, and a lambda at no cost.
        out = jax.eval_shape(lambda x: function(x), image)
    except InputError:
        raise
    except Exception as error:  # whatever the user's code makes of a tracer
        raise blamed(name, f"a function of an image {list(image_shape)}", error) from error
    if not hasattr(out, "shape") or not hasattr(out, "dtype"):
        raise expected(name, "one array for one image", type(out).__name__)
    return out


def blamed(name: str, wanted: str, error: Exception) -> InputError:
    """Return the error of somebody's function, in one line that names the argument it came in."""
    if isinstance(
        error, jax.errors.TracerArrayConversionError | jax.errors.ConcretizationTypeError
    ):
        return expected(
            name,
            "a function that JAX can trace",
            "one that needs NumPy values",
            "Write it with jax.numpy, and jnp.where in place of if",
        )
    reason = " ".join(str(error).split("\n")[0].split())[:200]
    return expected(name, wanted, f"{type(error).__name__}: {reason}")
