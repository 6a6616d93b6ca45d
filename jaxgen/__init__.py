"""jaxgen: samples from the posterior of a pretrained generator.

log p(z | condition) = log p(z) + log p(condition | G(z)) + const
"""

from jaxgen import adapt, baselines, kernels, plot, ppgn, schedules, tasks
from jaxgen.ais import ais
from jaxgen.ascent import AscentResult, ascend
from jaxgen.bdmc import BDMCResult, bdmc, reverse_ais
from jaxgen.calibration import Calibration, calibrate
from jaxgen.conditions import (
    BernoulliPixels,
    Caption,
    ClassLogit,
    ClassLogSoftmax,
    ClassProbability,
    HiddenUnit,
    LowResolution,
    ObservedPixels,
    Operator,
)
from jaxgen.diagnostics import Diagnosis, diagnose
from jaxgen.errors import InputError
from jaxgen.export import to_arviz
from jaxgen.loglik import LogLikelihood, loglik
from jaxgen.models import load
from jaxgen.networks import Network, freeze
from jaxgen.observations import BernoulliObservation, GaussianObservation
from jaxgen.path import AnnealedPath, geometric_path, likelihood_path, tempered_prior_path
from jaxgen.posterior import Posterior
from jaxgen.priors import Box, Gaussian, ScorePrior, Sphere
from jaxgen.results import AISResult, SampleResult
from jaxgen.sample import images, positions, sample
from jaxgen.store import Preempted, StoredRun, load_run

__version__ = "0.1.0"

__all__ = [
    "AISResult",
    "AnnealedPath",
    "AscentResult",
    "BDMCResult",
    "BernoulliObservation",
    "BernoulliPixels",
    "Box",
    "Calibration",
    "Caption",
    "ClassLogSoftmax",
    "ClassLogit",
    "ClassProbability",
    "Diagnosis",
    "Gaussian",
    "GaussianObservation",
    "HiddenUnit",
    "InputError",
    "LogLikelihood",
    "LowResolution",
    "Network",
    "ObservedPixels",
    "Operator",
    "Posterior",
    "Preempted",
    "SampleResult",
    "ScorePrior",
    "Sphere",
    "StoredRun",
    "adapt",
    "ais",
    "ascend",
    "baselines",
    "bdmc",
    "calibrate",
    "diagnose",
    "freeze",
    "geometric_path",
    "images",
    "kernels",
    "likelihood_path",
    "load",
    "load_run",
    "loglik",
    "plot",
    "positions",
    "ppgn",
    "reverse_ais",
    "sample",
    "schedules",
    "tasks",
    "tempered_prior_path",
    "to_arviz",
]
