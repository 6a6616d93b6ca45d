"""Markov kernels on annealed paths: one file a family, the same interface in each."""

from jaxgen.kernels.base import ChainState, Kernel, StepInfo, Tuning
from jaxgen.kernels.clipped import Clipped
from jaxgen.kernels.from_blackjax import HMC, MALA, NUTS, AdjustedMCLMC, Barker
from jaxgen.kernels.gaussian import EllipticalSlice, PreconditionedCrankNicolson
from jaxgen.kernels.langevin import MALAApprox
from jaxgen.kernels.random_walk import RandomWalk

__all__ = [
    "HMC",
    "MALA",
    "NUTS",
    "AdjustedMCLMC",
    "Barker",
    "ChainState",
    "Clipped",
    "EllipticalSlice",
    "Kernel",
    "MALAApprox",
    "PreconditionedCrankNicolson",
    "RandomWalk",
    "StepInfo",
    "Tuning",
]
