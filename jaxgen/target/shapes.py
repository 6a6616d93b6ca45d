"""Checks that prior, generator and condition fit each other, by shapes alone.

Nothing is computed here. A batch-style generator must not be called a bad mask, nor one of
two arguments a bad prior, so each part is traced by itself, and where one fails, the usual
causes are tried before anything is said.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import InputError, expected
from jaxgen.core.pytree import StaticFunction
from jaxgen.target.conditions.checks import blamed, check_floating

__all__ = ["check_condition", "check_leaves", "check_prior", "image_struct"]

_CHANNELS = (1, 3, 4)
_CONVERT = (
    "Convert it: weights_convert.torchax_wrap.wrap(module, example=...), or "
    "python -m weights_convert torch FILE --recipe NAME"
)


def check_prior(prior: object, *, values: bool = True) -> None:
    """Check that the prior is a distribution with the methods that are called; its numbers too."""
    needed = ["sample", "latent", *([] if hasattr(prior, "score") else ["log_prob"])]
    missing = [name for name in needed if not callable(getattr(prior, name, None))]
    if missing:
        raise expected(
            "prior",
            "a distribution with sample, log_prob and latent",
            f"{type(prior).__name__} without {', '.join(missing)}",
            "As in jaxgen.Gaussian.standard(64)" if len(missing) > 1 else "",
        )
    check = getattr(prior, "check", None)
    if values and check is not None:
        check()


def check_leaves(posterior: object) -> None:
    """All that is data must be arrays: an object that JAX does not know is no data."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(posterior):
        known = isinstance(leaf, jax.Array | np.ndarray | np.generic | int | float | complex)
        if known or isinstance(leaf, jax.ShapeDtypeStruct):
            continue
        name = jax.tree_util.keystr(path).lstrip(".")
        raise expected(
            name,
            "arrays, or an object of a class marked with jaxgen.core.pytree.pytree",
            type(leaf).__name__,
        )


def image_struct(posterior: Any) -> jax.ShapeDtypeStruct:
    """Shape and type of an image.

    Raises:
      InputError: that blames the prior or the generator.
    """
    prior = posterior.prior
    try:
        position = jax.eval_shape(prior.sample, jax.random.key(0))
        latent = jax.eval_shape(prior.latent, position)
        density = None
        if hasattr(prior, "log_prob"):
            density = jax.eval_shape(prior.log_prob, position)
    except InputError:
        raise
    except Exception as error:  # whatever a prior of the user's does
        raise blamed("prior", "a distribution that JAX can trace", error) from error
    if density is not None and getattr(density, "shape", None) != ():
        got = f"shape {getattr(density, 'shape', density)}"
        raise expected("prior", "a log_prob that is a scalar", got, "Sum it over the latent")
    if not callable(posterior.generator):
        got = type(posterior.generator).__name__
        raise expected("generator", "a function of a latent", got)
    try:
        image = jax.eval_shape(posterior.picture, latent)
    except InputError:
        raise
    except Exception as error:  # whatever a generator of the user's does
        raise _of_generator(posterior.generator, latent, error) from error
    return _one_image(image)


def check_condition(condition: object, image: jax.ShapeDtypeStruct, *, values: bool = True) -> None:
    """Check that the condition gives a scalar for the image, and blame the right argument."""
    if not callable(condition):
        hint = "Add them: sum([a, b])" if isinstance(condition, list | tuple) else ""
        got = type(condition).__name__
        raise expected("condition", "a condition or a function of an image", got, hint)
    try:
        if values:
            cast(Any, condition).check(image.shape)
        out = jax.eval_shape(lambda x: condition(x), image)
    except Exception as error:  # a condition may be any function of an image
        layout = _layout(image.shape)
        if layout is not None:
            raise layout from error
        if isinstance(error, InputError):
            raise
        raise blamed("condition", f"a function of an image {list(image.shape)}", error) from error
    if getattr(out, "shape", None) != ():
        got = f"shape {getattr(out, 'shape', type(out).__name__)}"
        raise expected("condition", "a scalar for one image", got, "Sum over pixels")
    check_floating("condition", out.dtype)


def _one_image(image: Any) -> jax.ShapeDtypeStruct:
    if isinstance(image, tuple | list | dict) or not hasattr(image, "dtype"):
        count = f" of {len(image)}" if isinstance(image, tuple | list | dict) else ""
        key = repr(next(iter(image), 0)) if isinstance(image, dict) else "0"
        raise expected(
            "generator",
            "one float32 array for one latent",
            f"a {type(image).__name__}{count}",
            f"Take the image: lambda z: generator(z)[{key}]",
        )
    if not jnp.issubdtype(image.dtype, jnp.floating):
        hint = "Divide 8-bit images by 255" if image.dtype == jnp.uint8 else ""
        raise expected("generator", "one float32 array for one latent", image.dtype, hint)
    return image


def _of_generator(generator: object, latent: object, error: Exception) -> InputError:
    """Return the error of a generator that cannot take its latent."""
    function = generator.function if isinstance(generator, StaticFunction) else generator
    arguments = _required(function, str(error))
    if arguments is not None and len(arguments) != 1:
        names = f" ({', '.join(arguments)})" if arguments else ""
        return expected(
            "generator",
            "a function of one latent",
            f"one that needs {len(arguments)} arguments{names}",
            "Fix the class by jaxgen.Labelled(generator, label)" if arguments else "",
        )
    text = str(error)
    if "torch" in sys.modules and "Tensor" in text:
        wanted = "a function that JAX can differentiate"
        return expected("generator", wanted, "one that computes in torch", _CONVERT)
    if isinstance(
        error, jax.errors.TracerArrayConversionError | jax.errors.ConcretizationTypeError
    ):
        return blamed("generator", "", error)
    shapes = [list(np.shape(leaf)) for leaf in jax.tree.leaves(latent)]
    if callable(generator) and _takes_a_batch(generator, latent):
        return expected(
            "generator",
            "one image for one latent",
            "one that takes a batch of latents",
            "Give lambda z: generator(z[None])[0]",
        )
    wanted = getattr(generator, "input_shape", None)
    if wanted is not None and shapes != [list(wanted)]:
        got = f"shape {shapes[0] if len(shapes) == 1 else shapes}"
        hint = f"As in jaxgen.Gaussian.standard({wanted[0] if len(wanted) == 1 else wanted})"
        return expected("prior", f"latents of shape {list(wanted)} for the generator", got, hint)
    reason = " ".join(text.split("\n")[0].split())[:200]
    strict = "rank_promotion" in text or "dtype_promotion" in text  # no matter of the latent
    if strict or not isinstance(error, TypeError | ValueError):
        return blamed("generator", "a function of a latent", error)
    return expected("prior", "latents that the generator takes", f"shape {shapes}: {reason}")


def _required(function: Any, text: str) -> list[str] | None:
    """Return the names of positional arguments without a default; None where they are unknown."""
    missing = re.search(r"missing \d+ required (?:positional|keyword-only) arguments?: (.*)", text)
    if missing:
        return ["z", *re.findall(r"'(\w+)'", missing[1])]
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    places = [p for p in parameters if p.kind in kinds]
    needed = [p.name for p in places if p.default is p.empty]
    return needed if needed or not places else None


def _takes_a_batch(generator: Callable[..., object], latent: object) -> bool:
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), latent)
    try:
        out = jax.eval_shape(lambda z: generator(z), batch)
    except Exception:  # then that is not it
        return False
    return getattr(out, "shape", ())[:1] == (1,)


def _layout(shape: tuple[int, ...]) -> InputError | None:
    """Return the error of an image with a batch axis, or with its channels first."""
    if len(shape) == 4 and shape[0] == 1:
        return expected(
            "generator",
            "one image [H, W, channels] for one latent",
            f"shape {list(shape)}, with a batch axis",
            "Give lambda z: generator(z)[0]",
        )
    first = len(shape) == 3 and shape[0] in _CHANNELS
    if first and min(shape[1:]) > max(_CHANNELS) and shape[-1] not in _CHANNELS:
        return expected(
            "generator",
            "an image [H, W, channels]",
            f"shape {list(shape)}, channels first",
            "Give lambda z: jnp.moveaxis(generator(z), 0, -1)",
        )
    return None
