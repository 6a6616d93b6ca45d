"""What every benchmark script shares: arguments, one JSON line, the machine it ran on."""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

START = time.perf_counter()


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with `--smoke` and `--seed`, the script's docstring as its description."""
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


class Rows:
    """Finished rows of a benchmark, kept in a file of JSON lines from which a later run goes on.

    A row is a dictionary that says what it is in some of its fields, the key. Each row is
    written as soon as it is there; without a path nothing is written.

    Args:
      path: the file, or None.
      key: the fields that tell one row from another.
    """

    def __init__(self, path: str | Path | None, *key: str) -> None:
        self.path = None if path is None else Path(path)
        self.key = key
        self._rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        if self.path is not None and self.path.is_file():
            for line in self.path.read_text().splitlines():
                if line:
                    row = json.loads(line)
                    self._rows[self.name(row)] = row

    def name(self, row: dict[str, Any]) -> tuple[Any, ...]:
        """Return the values of a row's key; lists are read as tuples."""
        values = (row[field] for field in self.key)
        return tuple(tuple(x) if isinstance(x, list) else x for x in values)

    def __contains__(self, name: Any) -> bool:
        """Whether the row of this key is there: a value, or a tuple where the key has several."""
        return (name if isinstance(name, tuple) else (name,)) in self._rows

    def __getitem__(self, name: Any) -> dict[str, Any]:
        """Return the row of this key."""
        return self._rows[name if isinstance(name, tuple) else (name,)]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterate over rows, in the order in which they were made."""
        return iter(list(self._rows.values()))

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self._rows)

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Keep a row and append it to the file at once."""
        self._rows[self.name(row)] = row
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(row, default=_plain) + "\n")
        return row


@functools.partial(jax.jit, static_argnames="size")
def batched(function: Any, x: Any, size: int = 100) -> jax.Array:
    """Return a function (a pytree, such as a network) of many samples, a batch at a time."""
    return jax.lax.map(function, jnp.asarray(x), batch_size=size)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | jax.Array):
        return np.asarray(value).tolist()
    raise TypeError(type(value))
