"""The words of notes at a terminal: flags, where Python has arguments.

Results and summaries keep the words of Python, whoever reads them later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["LOGLIK", "SAMPLER", "in_flags"]

SAMPLER = {
    "Adaptive.cess": "CESS in --betas adaptive:CESS",
    "num_mcmc_steps": "--num-mcmc-steps",
    "num_chains": "--chains",
    "num_steps": "--steps",
    "step_size, or None": "--step-size, or auto",
    "step_size": "--step-size",
    "more chains": "more --chains",
    "longer warmup": "longer --warmup",
}
"""Of `jaxgen sample`, `inpaint` and `superres`."""

LOGLIK = {
    "more temperatures or a larger num_mcmc_steps": "more --temperatures",
    "more chains or a larger num_mcmc_steps": "more --chains or --temperatures",
    "num_mcmc_steps": "--temperatures",
}
"""Of `jaxgen loglik`, where the kernel moves once at each temperature."""


def in_flags(note: str, flags: Mapping[str, str] = SAMPLER) -> str:
    """Return a note with flags in the place of Python's arguments.

    Args:
      note: as a result has it.
      flags: of the command; where one name contains another, the longer one counts.
    """
    longest = sorted(flags, key=len, reverse=True)
    pattern = "|".join(re.escape(name) for name in longest)
    return re.sub(rf"(?<![\w-])({pattern})(?!\w)", lambda found: flags[found[1]], note)
