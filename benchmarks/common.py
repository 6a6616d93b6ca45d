"""What every benchmark script shares: arguments, one JSON line, the machine it ran on."""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

START = time.perf_counter()


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with `--smoke` and `--seed`, the script's docstring as its description."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--smoke", action="store_true", help="a small size, to see that it runs")
    result.add_argument("--seed", type=int, default=0)
    return result


def report(name: str, **figures: Any) -> None:
    """Print one JSON line: the figures, how long they took, and where."""
    line = {
        "benchmark": name,
        **figures,
        "seconds": round(time.perf_counter() - START, 1),
        "backend": jax.default_backend(),
        "jax": jax.__version__,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
    }
    print(json.dumps(line, default=_plain))


@functools.partial(jax.jit, static_argnames="size")
def batched(function: Any, x: Any, size: int = 100) -> jax.Array:
    """A function (a pytree, such as a network) of many samples, a batch at a time."""
    return jax.lax.map(function, jnp.asarray(x), batch_size=size)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | jax.Array):
        return np.asarray(value).tolist()
    raise TypeError(type(value))
