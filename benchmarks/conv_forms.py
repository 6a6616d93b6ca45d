"""How much faster are the matrix-product forms of `jaxgen.models.layers` than XLA's?

Times value and input gradient of the layers that the shipped generator and classifier
are made of, in both forms, interleaved, and prints one line of JSON with the best times
in milliseconds. `--smoke` runs a small batch once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.models.layers import Form, conv, conv_transpose

CASES = {
    # name: (function, input side, channels in, channels out, kernel, stride, padding)
    "up 7 to 14, 128 to 64": (conv_transpose, 7, 128, 64, 4, 2, 1),
    "up 14 to 28, 64 to 1": (conv_transpose, 14, 64, 1, 4, 2, 1),
    "down 28 to 14, 1 to 32": (conv, 28, 1, 32, 4, 2, 1),
    "down 14 to 7, 32 to 64": (conv, 14, 32, 64, 4, 2, 1),
    "3x3 at 14, 32 to 32": (conv, 14, 32, 32, 3, 1, 1),
}


def value_and_gradient(case: str, batch: int, form: Form) -> tuple[Callable, tuple]:
    """A jitted function of one case, and its arguments."""
    function, side, channels, features, kernel, stride, padding = CASES[case]
    x = jax.random.normal(jax.random.key(0), (batch, side, side, channels))
    w = 0.1 * jax.random.normal(jax.random.key(1), (kernel, kernel, channels, features))

    def value(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(function(x, w, stride=stride, padding=padding, form=form)))

    return jax.jit(jax.value_and_grad(value)), (x, w)


def best_times(case: str, batch: int, rounds: int) -> dict[str, float]:
    """The shortest time of each form over interleaved rounds, in milliseconds."""
    runs = {form: value_and_gradient(case, batch, form) for form in ("matmul", "xla")}
    times: dict[str, float] = dict.fromkeys(runs, float("inf"))
    for function, arguments in runs.values():
        jax.block_until_ready(function(*arguments))
    for _ in range(rounds):
        for form, (function, arguments) in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            times[form] = min(times[form], 1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    """Parse the command line, measure, print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a small batch, one round")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    batch, rounds = (2, 1) if options.smoke else (options.batch, options.rounds)
    cases = {}
    for case in CASES:
        times = best_times(case, batch, rounds)
        cases[case] = {
            "matmul_ms": round(times["matmul"], 3),
            "xla_ms": round(times["xla"], 3),
            "xla_over_matmul": round(times["xla"] / times["matmul"], 2),
        }
    print(
        json.dumps(
            {
                "benchmark": "conv_forms",
                "backend": jax.default_backend(),
                "batch": batch,
                "rounds": rounds,
                "cases": cases,
            }
        )
    )


if __name__ == "__main__":
    main()
