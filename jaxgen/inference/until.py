"""When to stop drawing: go on until chains agree and there are enough draws, or a limit.

A run that goes on from its state is the run that never stopped, so that whoever stops on a
criterion has the draws of a longer run from the start, to the bit. The criterion is looked at
after `num_steps` steps, and whenever the number of draws has doubled: so rarely that a mean over
draws is not biased much by stopping where it looks good.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.inference.observables import latents, observe
from jaxgen.metrics.chains import effective_sizes, split_rhat
from jaxgen.sampler.checkpoint.identity import stored_draws
from jaxgen.sampler.notes import sample_notes
from jaxgen.sampler.records import RunLength
from jaxgen.sampler.results import SampleResult
from jaxgen.sampler.state import SamplerState
from jaxgen.target.posterior import Posterior

__all__ = ["Converged", "as_goal", "draw_until"]

# Times the first number of steps.
_MOST_TIMES = 32


class Converged(NamedTuple):
    """A criterion for `sample(until=...)`.

    It looks at the log density and at the images (`jaxgen.diagnose` has both; latents may
    disagree where images agree), or at the latents where the target is no `Posterior`.

    Attributes:
      rhat: the largest R-hat of any quantity (Vehtari et al. 2021).
      ess: the least effective sample size of any quantity, of bulk and tails.
      most_steps: kernel steps after warm-up at most; None for 32 times `num_steps`.
    """

    rhat: float = 1.05
    ess: float = 400.0
    most_steps: int | None = None


def as_goal(until: Any, num_steps: int) -> Converged:
    """Return the criterion with its limit, from `sample`'s argument.

    Raises:
      InputError: for anything but "converged" and a usable `Converged`, and in a run of several
        processes.
    """
    goal = Converged() if isinstance(until, str) and until == "converged" else until
    if not isinstance(goal, Converged):
        raise expected("until", '"converged" or a jaxgen.Converged', until)
    if (processes := jax.process_count()) > 1:
        # Each sees the draws of its own chains alone, and they would not stop together.
        got = f"{processes} processes"
        raise expected("until", "a run of one process", got, "Raise num_steps instead")
    if num_steps < 1:
        raise expected("num_steps", "at least 1 where until is given", num_steps)
    if not goal.rhat > 1:
        raise expected("until.rhat", "a number above 1, where R-hat tends to", goal.rhat)
    if not goal.ess > 0:
        raise expected("until.ess", "a positive number of draws", goal.ess)
    most = _MOST_TIMES * num_steps if goal.most_steps is None else goal.most_steps
    if most < num_steps:
        raise expected("until.most_steps", f"at least num_steps, {num_steps}", most)
    return goal._replace(most_steps=most)


def lacking(draws: Any, target: Any, goal: Converged) -> str | None:
    """Return what draws still lack of the criterion, in words; None where they meet it."""
    if isinstance(target, Posterior):
        found = observe(jax.random.key(0), draws, target)
        spaces = {"log density": found.log_density, "image": found.image}
    else:
        spaces = {"latent": latents(draws)}
    missing = []
    for name, x in spaces.items():
        rhat, sizes = split_rhat(x), effective_sizes(x)
        if not np.any(np.isfinite(rhat)):
            missing.append(f"R-hat of the {name} is not known")
            continue
        worst = float(np.nanmax(rhat))
        least = float(min(np.nanmin(sizes.bulk), np.nanmin(sizes.tail)))
        if worst > goal.rhat:
            missing.append(f"R-hat {worst:.2f} ({name})")
        if least < goal.ess:
            missing.append(f"ESS {least:.0f} ({name})")
    return ", ".join(missing) or None


def draw_until(
    draw: Callable[[RunLength, SamplerState | None, bool], SampleResult],
    goal: Converged,
    target: Any,
    length: RunLength,
    *,
    state: SamplerState | None,
    folder: Path | None,
    resume: bool,
) -> SampleResult:
    """Draw, and go on until the draws meet the criterion or the limit is reached.

    Args:
      draw: `(length, state, resume)` -> result: a run of `sample`.
      goal: of `as_goal`.
      target: what is drawn from.
      length: of the first part.
      state: where the run begins, or None.
      folder: where the run is kept, or None. Then it goes on from there.
      resume: whether the folder may hold a run already.
    """
    # Steps after the last draw would stand between two parts.
    length = length._replace(rest=0)
    if folder is not None and resume:  # a run that was to become longer, and was interrupted
        length = length._replace(draws=max(length.draws, stored_draws(folder)))
    most = max(int(goal.most_steps or 0) // length.thin, length.draws)
    result = draw(length, state, resume)
    total = length.draws
    # A run that Ctrl-C has stopped has fewer draws, and ends.
    while _count(result.draws) == total:
        if (missing := lacking(result.draws, target, goal)) is None:
            return result
        more = min(total, most - total)
        if more <= 0:
            note = (
                f"after {total * length.thin} steps the chains have not converged as asked: "
                f"{missing}; raise until.most_steps, or use more chains or longer trajectories"
            )
            return result._replace(notes=(*result.notes, note))
        total += more
        if folder is not None:
            result = draw(length._replace(draws=total), state, True)
        else:
            part = draw(length._replace(draws=more, warmup=0), result.state, False)
            result = _joined(result, part)
    return result


def _count(draws: Any) -> int:
    """Return how many draws of each chain there are."""
    leaves = jax.tree.leaves(draws)
    if not leaves:
        raise expected(
            "until",
            "draws in memory to look at",
            "none: collect kept none, or more than a GiB is in the folder",
            "Use collect=jaxgen.positions, or a larger thin",
        )
    return int(leaves[0].shape[1])


def _joined(first: SampleResult, then: SampleResult) -> SampleResult:
    """Return the result of both parts of a run: the annealing of the first, the draws of both."""
    draws = jax.tree.map(lambda a, b: np.concatenate([a, b], axis=1), first.draws, then.draws)
    of_parts = {*sample_notes(first), *sample_notes(then)}
    kept = tuple(note for note in first.notes if note not in of_parts)
    before, new = _count(first.draws), _count(then.draws)
    share = new / (before + new)
    joined = first._replace(
        draws=draws,
        position=then.position,
        acceptance_rate=(1 - share) * first.acceptance_rate + share * then.acceptance_rate,
        step_size=then.step_size,
        num_gradients=then.num_gradients,
        num_divergent=then.num_divergent,
        state=then.state,
    )
    return joined._replace(notes=(*sample_notes(joined), *kept))
