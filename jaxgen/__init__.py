"""jaxgen: samples from the posterior of a pretrained generator.

log p(z | condition) = log p(z) + log p(condition | G(z)) + const
"""

from jaxgen import adapt, kernels, schedules
from jaxgen.ais import ais
from jaxgen.ascent import AscentResult, ascend
from jaxgen.conditions import (
    BernoulliPixels,
    ClassLogit,
    ClassLogSoftmax,
    ClassProbability,
    HiddenUnit,
    LowResolution,
    ObservedPixels,
    Operator,
)
from jaxgen.errors import InputError
from jaxgen.models import load
from jaxgen.networks import Network, freeze
from jaxgen.path import AnnealedPath, geometric_path, likelihood_path, tempered_prior_path
from jaxgen.posterior import Posterior
from jaxgen.priors import Box, Gaussian, ScorePrior, Sphere
from jaxgen.results import AISResult, SampleResult
from jaxgen.sample import images, positions, sample

__version__ = "0.1.0"

__all__ = [
    "AISResult",
    "AnnealedPath",
    "AscentResult",
    "BernoulliPixels",
    "Box",
    "ClassLogSoftmax",
    "ClassLogit",
    "ClassProbability",
    "Gaussian",
    "HiddenUnit",
    "InputError",
    "LowResolution",
    "Network",
    "ObservedPixels",
    "Operator",
    "Posterior",
    "SampleResult",
    "ScorePrior",
    "Sphere",
    "adapt",
    "ais",
    "ascend",
    "freeze",
    "geometric_path",
    "images",
    "kernels",
    "likelihood_path",
    "load",
    "positions",
    "sample",
    "schedules",
    "tempered_prior_path",
]
