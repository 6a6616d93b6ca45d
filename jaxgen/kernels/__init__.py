"""Markov kernels on annealed paths: one file per family, the same interface in each."""

from jaxgen.core.deprecation import former_names
from jaxgen.kernels.base import ChainState, Kernel, KernelParams, StepContext, StepInfo
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
    "KernelParams",
    "MALAApprox",
    "PreconditionedCrankNicolson",
    "RandomWalk",
    "StepContext",
    "StepInfo",
]

__getattr__ = former_names(__name__, {"Tuning": "KernelParams"})
