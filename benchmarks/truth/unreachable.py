"""Which modes does a path downhill from the prior reach, and which do none?

Gradient ascents (Adam) of the log posterior from draws of the prior, of a narrower and of a wider
one (0.3, 1 and 2 times its deviation). For each posterior of `jaxgen.posteriors` with known modes
that is asked for: the modes' masses, and how many ascents have ended in each. A mode in which none
ends cannot be found by any sampler that starts from the prior and follows gradients, unless it
is met by chance; `sample()` misses it without a word.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import numpy as np
import optax

from jaxgen import posteriors

WIDTHS = (0.3, 1.0, 2.0)
NAMES = (
    "narrow-beside-wide-8",
    "narrow-beside-wide-64",
    "eight-modes-32",
    "network-five-modes-16",
)


def ended(reference: Any, key: Any, width: float, count: int, steps: int) -> list[int]:
    """Return how many ascents have ended in each mode."""
    prior = reference.posterior.prior
    start = prior.mean + width * (
        jax.vmap(prior.sample)(jax.random.split(key, count)) - prior.mean[None]
    )
    optimiser = optax.adam(optax.cosine_decay_schedule(0.1, steps))
    slope = jax.vmap(jax.grad(lambda z: -reference.posterior(z)))

    def step(carry: Any, _: Any) -> Any:
        z, state = carry
        updates, state = optimiser.update(slope(z), state)
        return (optax.apply_updates(z, updates), state), None

    (z, _), _ = jax.lax.scan(step, (start, optimiser.init(start)), None, length=steps)
    return np.bincount(
        reference.modes(np.asarray(z)), minlength=len(reference.modes.masses)
    ).tolist()


def main() -> None:
    """Print one JSON line for each posterior."""
    options = common.parser(__doc__)
    options.add_argument("--names", default=",".join(NAMES), help="posteriors, with commas")
    options.add_argument("--ascents", type=int, default=512, help="from each width")
    options.add_argument("--steps", type=int, default=400)
    args = options.parse_args()
    count, steps = (16, 20) if args.smoke else (args.ascents, args.steps)
    for name in args.names.split(","):
        reference = posteriors.get(name)
        keys = jax.random.split(jax.random.key(args.seed), len(WIDTHS))
        found = {
            str(width): ended(reference, key, width, count, steps)
            for key, width in zip(keys, WIDTHS, strict=True)
        }
        masses = np.round(reference.modes.masses, 3).tolist()
        common.report("unreachable", posterior=name, masses=masses, ended=found)


if __name__ == "__main__":
    main()
