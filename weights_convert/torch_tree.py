"""Find the state dict in a checkpoint, and rid its names of what wrappers left.

A checkpoint is a tree of dictionaries whose leaves are tensors, and whatever else training kept.
Only what lies on the path that is asked for has to be understood.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from jaxgen.core.errors import InputError
from weights_convert.restricted_pickle import Placeholder, forbidden

__all__ = ["state_dict", "tidy", "under_prefix"]

_WRAPPERS = (
    "state_dict", "model_state_dict", "model", "net", "network", "params_ema", "params",
    "g_ema", "generator", "netG", "G_ema", "ema",
)  # fmt: skip
"""Where checkpoints keep the weights: chosen where only one of several has such a name."""
_OPTIMISER = ("optim", "optimizer", "optimizers", "optimizer_states", "opt", "scaler", "sched")
_DEEPEST = 6
_MOST_FOUND = 200
_MOST_SEEN = 100_000
_MOST_MODULES = 20_000
_COUNTERS = ("num_batches_tracked", "n_averaged")


def state_dict(tree: object, name: str, tensor: type, key: str | None = None) -> dict[str, Any]:
    """Return the one mapping from names to tensors in a checkpoint.

    Args:
      tree: what the file holds.
      name: what to call the file in errors.
      tensor: the class of its leaves.
      key: dotted path of the mapping, where there is more than one; names on the path may
        have dots themselves.

    Raises:
      InputError: listing the choices, or naming what stands there instead.
    """
    if key is not None:
        found = list(_at(tree, key))
        if not found:
            there = ", ".join(_short(k) for k in list(_items(tree) or {})[:20])
            raise InputError(f"{name}: no entry {_short(key)}; there are: {there or 'none'}")
        return _checked(found[0], name, tensor)
    items = _items(tree)
    if items is None:
        raise _no_state_dict(tree, name, tensor)
    found_at = list(itertools.islice(_state_dicts(tree, tensor, (), [_MOST_SEEN]), _MOST_FOUND))
    if found_at == [()]:
        return _checked(tree, name, tensor)
    preferred = [path for path in found_at if path and path[-1] in _WRAPPERS]
    if len(found_at) == 1 or len(preferred) == 1:
        path = (preferred if len(preferred) == 1 else found_at)[0]
        return _checked(_walk(tree, path), name, tensor)
    if found_at:
        choice = ", ".join(repr(".".join(map(str, path)))[:82] for path in found_at[:20])
        raise InputError(f"{name}: more than one state dict; choose a key among {choice} (--key)")
    for value in (tree, *items.values()):
        if isinstance(value, Placeholder):
            raise forbidden(name, value.label)
    there = ", ".join(map(_short, list(items)[:20]))
    raise InputError(f"{name}: no tensors; the entries are {there or 'none'}")


def tidy(state: Mapping[str, np.ndarray], name: str = "state dict") -> dict[str, np.ndarray]:
    """Return the state dict without what wrappers and training left in it.

    `_orig_mod.` (torch.compile) goes wherever it stands, a leading `module.` (DataParallel,
    AveragedModel) when every key has it, `num_batches_tracked` and `n_averaged` always. Half
    precision becomes float32.

    Raises:
      InputError: if two keys become one.
    """
    keys = {
        key: key.replace("_orig_mod.", "")
        for key in state
        if key.rsplit(".", 1)[-1] not in _COUNTERS
    }
    while keys and all(new.startswith("module.") for new in keys.values()):
        keys = {old: new.removeprefix("module.") for old, new in keys.items()}
    result: dict[str, np.ndarray] = {}
    for old, new in keys.items():
        if new in result:
            raise InputError(f"{name}: two entries are called {new!r} without their prefixes")
        array = state[old]
        narrow = array.dtype in (np.dtype("f2"), np.dtype(ml_dtypes.bfloat16))
        result[new] = array.astype(np.float32) if narrow else array
    return result


def under_prefix(state: Mapping[str, Any], prefix: str, name: str) -> dict[str, Any]:
    """Return the entries whose names begin with a prefix, without it; a last dot may be left out.

    Raises:
      InputError: if there are none, with the prefixes that there are.
    """
    dotted = prefix if prefix.endswith((".", "_")) else f"{prefix}."
    found = {k.removeprefix(dotted): v for k, v in state.items() if k.startswith(dotted)}
    if not found:
        there = list(dict.fromkeys(key.partition(".")[0] for key in state))[:20]
        known = ", ".join(map(_short, there))
        raise InputError(
            f"{name}: --prefix: no entry begins with {_short(dotted)}; they begin with {known}"
        )
    return tidy(found, name)


# Inside ------------------------------------------------------------------------------


def _items(value: object) -> Mapping[Any, Any] | None:
    """Return the entries of a dictionary, or of an object of an unknown class that is one."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Placeholder):
        if value.items:
            return value.items
        module = _module_state(value, [_MOST_MODULES])
        if module is not None:
            return module
        return value.state if isinstance(value.state, dict) else None
    return None


def _module_state(value: object, budget: list[int], depth: int = 0) -> dict[str, Any] | None:
    """Return the state dict of a pickled `torch.nn.Module`, read off its attributes; else None.

    `budget` bounds the number of modules in all: a file can share one a million times.
    """
    state = value.state if isinstance(value, Placeholder) else None
    budget[0] -= 1
    if not isinstance(state, dict) or depth > 40 or budget[0] < 0:
        return None
    parts = [state.get(part) for part in ("_parameters", "_buffers", "_modules")]
    if not all(isinstance(part, dict) for part in parts):
        return None
    parameters, buffers, modules = parts  # type: ignore[misc]
    lost = state.get("_non_persistent_buffers_set")
    skipped = set(x for x in lost if isinstance(x, str)) if isinstance(lost, list) else set()
    found = {
        str(k): v
        for k, v in [*parameters.items(), *buffers.items()]  # type: ignore[union-attr]
        if v is not None and str(k) not in skipped
    }
    for name, module in modules.items():  # type: ignore[union-attr]
        if module is None:
            continue
        inner = _module_state(module, budget, depth + 1)
        if inner is None or len(found) + len(inner) > 100_000:
            return None
        found |= {f"{name}.{k}": v for k, v in inner.items()}
    return found


def _at(tree: object, key: str) -> Iterator[Any]:
    """Yield what lies at a dotted path; names with dots are tried as well, the longest first."""
    items = _items(tree)
    if items is None:
        return
    if key in items:
        yield items[key]
    parts = key.split(".")
    for count in range(min(len(parts), 32) - 1, 0, -1):
        first = ".".join(parts[:count])
        if first in items:
            yield from _at(items[first], ".".join(parts[count:]))


def _walk(tree: object, path: tuple[Any, ...]) -> Any:
    for part in path:
        tree = (_items(tree) or {})[part]
    return tree


def _state_dicts(
    tree: object, tensor: type, path: tuple[str, ...], budget: list[int]
) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all mappings from names to tensors, those of optimisers left out.

    A mapping that holds others as well as tensors, such as a mean latent beside a generator's
    weights, is a wrapper. `budget` bounds the visits: a file can share or nest mappings at will.
    """
    items = _items(tree)
    budget[0] -= 1
    if items is None or len(path) > _DEEPEST or budget[0] < 0:
        return
    inner = False
    for key, value in items.items():
        if isinstance(key, str) and not key.lower().startswith(_OPTIMISER):
            for found in _state_dicts(value, tensor, (*path, key), budget):
                inner = True
                yield found
    if not inner and any(isinstance(value, tensor) for value in items.values()):
        yield path


def _checked(found: object, name: str, tensor: type) -> dict[str, Any]:
    """Return a mapping, every entry of which is a tensor."""
    items = _items(found)
    if items is None:
        raise _no_state_dict(found, name, tensor)
    if not any(isinstance(value, tensor) for value in items.values()):
        return state_dict(found, name, tensor)  # a wrapper around the mapping
    for key, value in items.items():
        if isinstance(value, Placeholder):
            raise forbidden(f"{name}: {_short(key)}", value.label)
    wrong = [k for k, v in items.items() if not (isinstance(v, tensor) and isinstance(k, str))]
    if wrong:
        raise InputError(
            f"{name}: {len(wrong)} entries of the state dict are no tensors: "
            + ", ".join(map(_short, wrong[:10]))
        )
    return dict(items)


def _no_state_dict(value: object, name: str, tensor: type) -> InputError:
    if isinstance(value, Placeholder):
        return forbidden(name, value.label)
    kind = "a lone tensor" if isinstance(value, tensor) else f"a {type(value).__name__}"
    return InputError(f"{name}: expected a state dict, name -> tensor; the file holds {kind}")


def _short(value: object) -> str:
    """Return a name from a file, safe to print and of bounded length."""
    return repr(value[:80]) if isinstance(value, str) else f"a {getattr(value, 'kind', 'number')}"
