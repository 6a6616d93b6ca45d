"""`--budget quick|standard|paper`: settings by their price, and the price beforehand.

A run takes chains x gradients for each chain x the time of a gradient. The first is a setting, the
last is measured here, after compiling. How many gradients a chain needs with adaptive
temperatures is known only afterwards: for these, what runs of the shipped networks needed stands
in their place, and the estimate says "about".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxgen.cli.runs import Settings

__all__ = ["PRESETS", "announced", "duration", "expected_gradients", "preset", "time_of_gradient"]

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"chains": 16, "kernel": "hmc:5", "num_mcmc_steps": 1, "warmup": 5, "steps": 10},
    "standard": {},
    "paper": {
        "chains": 10,
        "kernel": "hmc:20",
        "betas": "cogen-images",
        "num_mcmc_steps": 1,
        "warmup": 0,
        "steps": 1,
        "thin": 1,
        "resample": "none",
    },
}
"""Budget -> the options that it sets."""

# Gradients that annealing with adaptive temperatures took, and those of scouts (in kernel steps)
# and of the candidates for first states. Runs of the shipped networks took 369 gradients for each
# chain with "quick", where these figures say 375. With "standard" chains move until they have
# mixed: 15 completions with `fashion-mnist/gan` took 645 to 3,487, the median 1,208, where these
# figures say 1,240.
_ANNEALING, _UNTIL_MIXED, _SCOUTING, _CANDIDATES = 200, 800, 8, 60
_LEAPFROGS = 10
_BATCH = 16


def preset(budget: str | None, typed: Sequence[str]) -> dict[str, Any]:
    """Return the options that a budget sets, but for those that were typed.

    Args:
      budget: a name in `PRESETS`, or None.
      typed: the words of the command line.
    """
    if budget is None:
        return {}
    names = {word.partition("=")[0] for word in typed}
    names |= {"--num-mcmc-steps"} if "--moves" in names else set()
    return {
        name: value
        for name, value in PRESETS[budget].items()
        if f"--{name.replace('_', '-')}" not in names
    }


def expected_gradients(settings: Settings) -> int:
    """Return about how many gradients each chain will take."""
    name, _, length = settings.kernel.partition(":")
    leapfrogs = int(length or _LEAPFROGS) if name in ("hmc", "nuts", "mclmc") else 1
    listed = settings.betas.partition(":")
    counts = {"cogen-images": 499, "cogen-toy": 9999, "cogen-toy-paper": 5999, "wu2017": 9999}
    after = settings.warmup + settings.steps
    if listed[0] not in counts and not listed[2].isdecimal():
        annealing = _ANNEALING if settings.num_mcmc_steps else _UNTIL_MIXED
        return leapfrogs * (after + _SCOUTING) + annealing + _CANDIDATES
    temperatures = counts.get(listed[0]) or int(listed[2])
    return leapfrogs * (temperatures * (settings.num_mcmc_steps or 3) + after)


def time_of_gradient(target: Any, *, batch: int = _BATCH) -> float:
    """Return the seconds of one gradient of a posterior in a batch, measured after compiling."""
    keys = jax.random.split(jax.random.key(0), batch)
    position = jax.vmap(target.prior.sample)(keys)

    @jax.jit
    def gradient(target: Any, position: Any) -> Any:
        return jax.vmap(jax.grad(lambda z: jnp.sum(target(z))))(position)

    jax.block_until_ready(gradient(target, position))
    times = []
    for _ in range(2):
        begun = time.perf_counter()
        jax.block_until_ready(gradient(target, position))
        times.append(time.perf_counter() - begun)
    return min(times) / batch


def announced(target: Any, settings: Settings) -> str:
    """Return the line that says what a budget costs on this machine."""
    each, count = time_of_gradient(target), expected_gradients(settings)
    total = each * count * settings.chains
    return (
        f"budget {settings.budget}: {settings.chains} chains of about {count:,} gradients, "
        f"{1e3 * each:.2g} ms each here: about {duration(total)}, and compiling"
    )


def duration(seconds: float) -> str:
    """Return a duration in words: "40 s", "3 min", "2.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
