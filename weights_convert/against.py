"""Compare a conversion with the source itself, not with a network built from its assumptions.

A recipe's reference shares the recipe's guesses: a generator with a LeakyReLU, converted as one
with ReLU, agrees with such a reference to 1e-6 and with the truth to 0.15. Two things know the
truth: outputs that the source framework computed (`pairs.npz`), and the source's own class
(`module.py:Net`), whose code is run and therefore has to be your own.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgen.core.errors import InputError, expected
from jaxgen.models.ported import PORTED
from weights_convert.archives import read_npz
from weights_convert.torch_parity import LayerError, layer_errors, layer_sources

__all__ = ["compare_with_module", "compare_with_pairs", "load_module", "read_pairs"]

_INPUTS = ("z", "x", "input", "inputs", "latents", "noise")
_OUTPUTS = ("images", "y", "output", "outputs", "logits", "image")
_MOST_NUMBERS = 1 << 27


def read_pairs(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read inputs and outputs from an npz, as the source framework has them: images (N, C, H, W).

    Raises:
      InputError: if there is not one array of each, both for the same number of samples.
    """
    path = Path(path)
    if not path.is_file():
        raise expected("--against", "an npz that exists, or module.py:Net", str(path))
    arrays = read_npz(path)
    found = []
    for what, names in (("input", _INPUTS), ("output", _OUTPUTS)):
        there = [name for name in names if name in arrays]
        if len(there) != 1:
            got = ", ".join(map(repr, arrays)) or "none"
            raise expected(f"{path}: {what}", f"one array called {' or '.join(names)}", got[:300])
        array = arrays[there[0]]
        if array.dtype.kind not in "fiu" or array.size > _MOST_NUMBERS or array.ndim < 1:
            raise expected(f"{path}: {there[0]}", "an array of numbers", f"{array.dtype}")
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise expected(f"{path}: {there[0]}", "finite numbers", "NaN or infinity")
        found.append(array)
    if len(found[0]) != len(found[1]) or not len(found[0]):
        raise expected(
            f"{path}", "as many outputs as inputs", f"{len(found[0])} and {len(found[1])}"
        )
    return found[0], found[1]


def compare_with_pairs(done: Any, path: str | Path) -> list[LayerError]:
    """Return the error of the output over all pairs; see `read_pairs`.

    Args:
      done: the conversion, with its weights.
      path: the npz.

    Raises:
      InputError: if the pairs have other shapes than the network.
    """
    inputs, outputs = read_pairs(path)
    wanted = PORTED[done.recipe.architecture].input_shape(done.config)
    ours_in = _our_input(done.config, inputs, tuple(wanted), str(path))
    graphdef, state = nnx.split(done.module)
    run = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))
    found = np.concatenate([np.asarray(run(state, x[None])) for x in ours_in])
    theirs = _our_output(done, outputs)
    ours = _as_theirs(done, found)
    if theirs.shape == (*ours.shape, 1):
        theirs = theirs[..., 0]
    if ours.shape != theirs.shape:
        raise expected(f"{path}: output", f"shape {_torch_shape(ours)}", str(outputs.shape))
    error = float(np.abs(ours - theirs).max()) / max(float(np.abs(theirs).max()), 1e-30)
    return [LayerError("output", "output", theirs.shape, error)]


def load_module(text: str) -> Any:
    """Return the torch module that `module.py:Net` names, made without arguments.

    Its code is run: it has to be your own.

    Raises:
      ImportError: without torch.
      InputError: if there is no such file or name, or it cannot be made without arguments.
    """
    from weights_convert.references import need_torch

    torch = need_torch()
    file, _, name = text.rpartition(":")
    path = Path(file)
    if not path.is_file() or path.suffix != ".py" or not name.isidentifier():
        raise expected("--against", "pairs.npz, or module.py:Net of a file that exists", text)
    spec = importlib.util.spec_from_file_location(f"_against_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
        made = getattr(module, name, None)
        if made is None:
            raise expected("--against", f"a name in {path}", name)
        made = made if isinstance(made, torch.nn.Module) else made()
    except InputError:
        raise
    except Exception as error:  # whatever the user's code raises
        hint = f"Write a function without arguments that returns the network, and name it: {file}:F"
        raise expected(
            "--against", f"{name} of {path} to be made without arguments",
            f"{type(error).__name__}: {str(error)[:200]}", hint,
        ) from error  # fmt: skip
    finally:
        sys.path.remove(str(path.parent))
    if not isinstance(made, torch.nn.Module):
        raise expected("--against", "a torch.nn.Module", type(made).__name__)
    return made.eval()


def compare_with_module(done: Any, theirs: Any, batch: np.ndarray) -> list[LayerError]:
    """Layer by layer against a torch module of the source's own, which takes its state dict.

    Args:
      done: the conversion, with its weights.
      theirs: the module.
      batch: input of ours, `[N, ...]`.

    Raises:
      InputError: if the module does not take the state dict or the input.
    """
    import re

    import torch

    state = {k: torch.from_numpy(np.array(v)) for k, v in (done.raw or done.state).items()}
    try:
        missing, unexpected = theirs.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(f"--against: {' '.join(str(error).split())[:600]}") from error
    unexpected = [k for k in unexpected if not any(re.fullmatch(p, k) for p in done.ignored)]
    missing = [k for k in missing if not k.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise InputError(f"--against: the module lacks {unexpected[:20]} and wants {missing[:20]}")
    theirs.eval()
    sources = layer_sources(done.module, done.recipe, done.config)
    problem: Exception | None = None
    for arguments in _their_inputs(done, batch):
        try:
            return layer_errors(
                done.module, theirs, sources, batch, arguments,
                lambda output: _their_output(done, output), lambda output: _as_theirs(done, output),
            )  # fmt: skip
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            problem = problem or error
    raise InputError(f"--against: the module does not run: {str(problem)[:300]}") from problem


# Between their arrays and ours -----------------------------------------------------------


def _first_and_last(config: Mapping[str, Any]) -> tuple[str, str]:
    layers = config.get("layers")
    if not isinstance(layers, list) or not layers or not isinstance(layers[0], Mapping):
        return "", ""
    types = [layer["type"] for layer in layers]
    tail = [kind for kind in types if kind in ("to_unit",)]
    return types[0], tail[-1] if tail else ""


def _our_input(
    config: Mapping[str, Any], x: np.ndarray, wanted: tuple[int, ...], where: str
) -> np.ndarray:
    if x.ndim == 4 and len(wanted) == 3:
        x = np.moveaxis(x, 1, -1)
        if config.get("mean"):
            x = x * np.asarray(config["std"], np.float32) + np.asarray(config["mean"], np.float32)
        if _first_and_last(config)[0] == "from_unit":
            x = 0.5 * x + 0.5
    elif len(wanted) == 1 and x.shape[1:] == (*wanted, 1, 1):
        x = x[..., 0, 0]
    if x.shape[1:] != wanted:
        theirs = (wanted[2], *wanted[:2]) if len(wanted) == 3 else wanted
        raise expected(f"{where}: input", f"samples of shape {theirs}", str(x.shape[1:]))
    return x


def _our_output(done: object, y: np.ndarray) -> np.ndarray:
    y = _their_output(done, y)
    return np.moveaxis(y, 1, -1) if y.ndim == 4 else y


def _their_output(done: Any, y: np.ndarray) -> np.ndarray:
    """In our range, still in their order of axes."""
    if done.recipe.reference_output is not None:
        return done.recipe.reference_output(done.config, y)
    return 0.5 * y + 0.5 if _first_and_last(done.config)[1] == "to_unit" else y


def _as_theirs(done: Any, ours: np.ndarray) -> np.ndarray:
    """Our logits as probabilities, where the source ends in the softmax that was cut."""
    if "output" not in done.metadata:
        return ours
    return np.asarray(jax.nn.softmax(jnp.asarray(ours), axis=-1))


def _their_inputs(done: Any, batch: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """Our batch as the module may want it; latents with or without two axes of one pixel."""
    if done.recipe.reference_input is not None:
        return [done.recipe.reference_input(done.config, batch)]
    config = done.config
    first = _first_and_last(config)[0]
    if batch.ndim == 4:
        if config.get("mean"):
            batch = (batch - np.asarray(config["mean"])) / np.asarray(config["std"])
        batch = 2 * batch - 1 if first == "from_unit" else batch
        return [(np.moveaxis(batch, -1, 1).astype(np.float32),)]
    flat, image = (batch,), (batch[..., None, None],)
    return [image, flat] if first == "unflatten" else [flat, image]


def _torch_shape(ours: np.ndarray) -> tuple[int, ...]:
    return (ours.shape[0], ours.shape[3], *ours.shape[1:3]) if ours.ndim == 4 else ours.shape
