"""Checks of what users compose, made once and before anything is traced."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected

__all__ = ["check_image", "check_index", "check_label", "check_mask", "check_noise", "check_scalar"]


def check_mask(mask: Any, image_shape: tuple[int, ...]) -> None:
    shapes = (image_shape, image_shape[:-1], (*image_shape[:-1], 1))
    if np.shape(mask) not in shapes:
        raise expected("mask", f"shape {image_shape[:-1]} like the image", np.shape(mask))
    values = np.asarray(mask)
    if not np.all((values == 0) | (values == 1)):
        raise expected("mask", "0 (hidden) or 1 (observed) everywhere", "other values")
    if not values.any():
        raise expected("mask", "at least one observed pixel", "none")


def check_image(
    name: str, image: Any, shape: tuple[int, ...], where: np.ndarray | None = None
) -> None:
    if np.shape(image) != tuple(shape):
        raise expected(name, f"shape {tuple(shape)}", np.shape(image))
    values = np.asarray(image)
    # Hidden pixels take no part, but 0 * NaN in a gradient would.
    if not np.all(np.isfinite(values)):
        raise expected(
            name, "finite pixels", f"{int(np.sum(~np.isfinite(values)))} NaN or infinite"
        )
    seen = values if where is None else values[where]
    if seen.min() < -1e-3 or seen.max() > 1 + 1e-3:
        raise expected(
            name,
            "pixels in [0, 1]",
            f"[{seen.min():.4g}, {seen.max():.4g}]",
            "Divide 8-bit images by 255",
        )


def check_noise(noise: Any) -> None:
    if not (np.all(np.isfinite(noise)) and np.all(np.asarray(noise) > 0)):
        raise expected("noise", "a positive number", noise)


def check_index(name: str, index: Any, size: int) -> None:
    if not np.issubdtype(np.asarray(index).dtype, np.integer):
        raise expected(name, f"an integer from 0 to {size - 1}", index)
    if np.any(np.asarray(index) < 0) or np.any(np.asarray(index) >= size):
        raise expected(name, f"an integer from 0 to {size - 1}", index)


def check_label(condition: Any, image_shape: tuple[int, ...]) -> None:
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    logits = jax.eval_shape(condition.classifier, image)
    if len(logits.shape) != 1:
        raise expected("classifier", "logits of shape [K] for one image", logits.shape)
    check_index("label", condition.label, logits.shape[0])


def check_scalar(name: str, function: Any, image_shape: tuple[int, ...]) -> None:
    out = jax.eval_shape(function, jax.ShapeDtypeStruct(image_shape, jnp.float32))
    if out.shape != ():
        raise expected(name, "a function that returns a scalar", f"shape {out.shape}")
