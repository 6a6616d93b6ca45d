"""The recipes of networks of words; importing this file adds them to `jaxgen.train.RECIPES`.

They learn a text of one's own: `jaxgen train text/writer --text FILE`.
"""

from __future__ import annotations

from jaxgen.sequences.jobs import CONFIGS, JOBS
from jaxgen.train.job import Recipe
from jaxgen.train.recipes import register

__all__ = ["RECIPES"]

RECIPES = {
    "text/writer": Recipe("seqgan", 6_000),
    "text/seqgan": Recipe("seqgan", 6_400, options={"judge": 0.05, "game": 0.01}),
    "text/infiller": Recipe("maskgan", 3_000),
    "text/maskgan": Recipe("maskgan", 3_700, options={"judge": 0.05, "game": 0.135}),
}

register(RECIPES, JOBS, CONFIGS)
