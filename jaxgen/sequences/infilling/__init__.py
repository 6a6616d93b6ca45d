"""Posterior sampling from sequence generators: some tokens are observed, the rest is drawn.

    p(y | o) proportional to p(y) prod_{t observed} 1[y_t = o_t] L(y)

`infill` draws from it for any model that writes tokens one after another, with `jaxgen.sample`'s
vocabulary: log weights, log Z and its standard error, ESS, acceptance, exactness. Here exact
means what it says: weights are unbiased and moves leave the posterior invariant, up to float32.
"""

from jaxgen.core.deprecation import former_names
from jaxgen.sequences.infilling.moves import BlockMH, Gibbs, full_conditional
from jaxgen.sequences.infilling.particles import ParticleGibbs
from jaxgen.sequences.infilling.proposals import MaskedProposal
from jaxgen.sequences.infilling.results import InfillingHistory, InfillingResult
from jaxgen.sequences.infilling.run import infill
from jaxgen.sequences.infilling.target import Autoregressive, TokenPosterior

__all__ = [
    "Autoregressive",
    "BlockMH",
    "Gibbs",
    "InfillingHistory",
    "InfillingResult",
    "MaskedProposal",
    "ParticleGibbs",
    "TokenPosterior",
    "full_conditional",
    "infill",
]

__getattr__ = former_names(__name__, {"Redraw": "BlockMH"})
