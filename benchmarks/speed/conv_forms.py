"""How much faster are the matrix-product forms of `jaxgen.models.conv.layers` than XLA's?

Times value and input gradient of the layers that the shipped generator and classifier
are made of, in both forms, and prints one line of JSON with the best times in
milliseconds per evaluation: called once ("call") and inside a compiled loop of ten
("scan"), where samplers run and where XLA's CPU convolutions are much slower than when
called. `--smoke` runs a small batch once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.models.conv.layers import Form, conv, conv_transpose

LOOP = 10
CASES = {
    # name: (function, input side, channels in, channels out, kernel, stride, padding)
    "up 7 to 14, 128 to 64": (conv_transpose, 7, 128, 64, 4, 2, 1),
    "up 14 to 28, 64 to 1": (conv_transpose, 14, 64, 1, 4, 2, 1),
    "down 28 to 14, 1 to 32": (conv, 28, 1, 32, 4, 2, 1),
    "down 14 to 7, 32 to 64": (conv, 14, 32, 64, 4, 2, 1),
    "3x3 at 14, 32 to 32": (conv, 14, 32, 32, 3, 1, 1),
}


def functions(case: str, batch: int, form: Form) -> tuple[Callable, Callable, tuple]:
    """Return a jitted call and a jitted loop of one case, and their arguments."""
    function, side, channels, features, kernel, stride, padding = CASES[case]
    x = jax.random.normal(jax.random.key(0), (batch, side, side, channels))
    w = 0.1 * jax.random.normal(jax.random.key(1), (kernel, kernel, channels, features))

    def value(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(function(x, w, stride=stride, padding=padding, form=form)))

    def call(x: jax.Array, w: jax.Array) -> jax.Array:
        return x - 1e-6 * jax.grad(value)(x, w)

    def loop(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, _: (call(x, w), None), x, None, length=LOOP)[0]

    return jax.jit(call), jax.jit(loop), (x, w)


def best_times(case: str, batch: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the shortest time of each form, called and in a loop, over interleaved rounds."""
    runs = {}
    for form in ("matmul", "xla"):
        call, loop, arguments = functions(case, batch, form)
        runs["call", form] = call, arguments, 1
        runs["scan", form] = loop, arguments, LOOP
    times = dict.fromkeys(runs, float("inf"))
    for function, arguments, _ in runs.values():
        jax.block_until_ready(function(*arguments))
    for _ in range(rounds):
        for name, (function, arguments, count) in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            times[name] = min(times[name], 1e3 * (time.perf_counter() - start) / count)
    return {
        way: {
            "matmul_ms": round(times[way, "matmul"], 3),
            "xla_ms": round(times[way, "xla"], 3),
            "xla_over_matmul": round(times[way, "xla"] / times[way, "matmul"], 2),
        }
        for way in ("call", "scan")
    }


def main() -> None:
    """Parse the command line, measure, print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a small batch, one round")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    batch, rounds = (2, 1) if options.smoke else (options.batch, options.rounds)
    cases = {case: best_times(case, batch, rounds) for case in CASES}
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
