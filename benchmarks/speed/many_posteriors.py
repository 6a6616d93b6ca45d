"""What is gained by `sample_each` over a loop of calls of `sample`?

N halves of images that a shipped decoder has drawn are completed: one call of
`jaxgen.sample_each`, a loop over `jaxgen.sample`, and a loop over `jax.jit(jaxgen.sample)`.
Everything is compiled before the clock starts. The last column compares log Z of the two: the
root mean square of their difference over its stated error (0 where the bits are equal).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen.core.pytree import pytree

KEY = jax.random.key(0)
NOISE = 0.1


@pytree
class Completion:
    """An image's upper half -> the posterior of its latent."""

    generator: Any
    mask: Any
    prior: Any

    def __call__(self, seen: Any) -> jaxgen.Posterior:
        """Return the posterior."""
        condition = jaxgen.ObservedPixels(seen, self.mask, jnp.float32(NOISE))
        return jaxgen.Posterior(self.prior, self.generator, condition)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of wall clock, and what came out."""
    begun = time.perf_counter()
    found = function()
    return time.perf_counter() - begun, found


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few items, one round")
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--generator", default="fashion-mnist/vae-gaussian")
    parser.add_argument("--batch", type=int, default=None)
    options = parser.parse_args()
    count, rounds = (3, 1) if options.smoke else (options.items, options.rounds)

    generator = jaxgen.load(options.generator)
    size = 64 if "dcgan" in options.generator else 20
    mask = jnp.ones((28, 28, 1)).at[14:].set(0.0)
    keys = jax.random.split(jax.random.key(1), 2)
    drawn = jax.lax.map(generator, jax.random.normal(keys[0], (count, size)))
    seen = (drawn + NOISE * jax.random.normal(keys[1], drawn.shape)) * mask[None]
    make = Completion(generator, mask, jaxgen.Gaussian.standard(size))
    settings: dict[str, Any] = {"num_chains": options.chains, "num_steps": 10, "warmup": 5}

    def loop(call: Any) -> list[Any]:
        # Each result is read, as `sample_each` reads it.
        return [call(jax.random.fold_in(KEY, i), make(seen[i])).settled() for i in range(count)]

    def plain(key: Any, posterior: Any) -> Any:
        return jaxgen.sample(key, posterior, **settings)

    jitted = jax.jit(plain)
    ways: dict[str, Callable[[], Any]] = {
        "sample_each": lambda: jaxgen.sample_each(KEY, make, seen, batch=options.batch, **settings),
        "loop over sample": lambda: loop(plain),
        "loop over jit(sample)": lambda: loop(jitted),
    }
    first = seen[: options.batch or 1]
    jaxgen.sample_each(KEY, make, first, batch=options.batch, **settings)
    plain(KEY, make(seen[0]))
    jitted(KEY, make(seen[0]))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Any] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            took, found[name] = timed(way)
            seconds[name].append(took)
    pairs = list(zip(found["sample_each"], found["loop over sample"], strict=True))
    ratio = [
        (a.log_z - b.log_z) / np.hypot(a.log_z_standard_error, b.log_z_standard_error)
        for a, b in pairs
    ]
    medians = {name: round(statistics.median(times), 3) for name, times in seconds.items()}
    print(
        json.dumps(
            {
                "benchmark": "many_posteriors",
                "generator": options.generator,
                "items": count,
                "chains": options.chains,
                "batch": options.batch,
                "rows": medians,
                "speed_up": round(medians["loop over sample"] / medians["sample_each"], 2),
                "difference_over_error": round(float(np.sqrt(np.mean(np.square(ratio)))), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
