"""Every public name of `jaxgen`, imported together when the first of them is asked for.

`import jaxgen` alone imports none of this, so that `jaxgen --help` need not wait for JAX.
"""

from typing import TYPE_CHECKING

import jaxgen.kernels as kernels
import jaxgen.posteriors as posteriors
from jaxgen.applications import baselines, ppgn, tasks
from jaxgen.core import aliases
from jaxgen.core.errors import InputError
from jaxgen.core.version import __version__ as __version__
from jaxgen.data import examples
from jaxgen.diagnostics import Diagnosis, diagnose
from jaxgen.diagnostics.arviz import to_arviz
from jaxgen.diagnostics.calibration import Calibration, calibrate
from jaxgen.inference.ais import ais
from jaxgen.inference.annealed import Annealed, annealed
from jaxgen.inference.ascent import AscentResult, ascend
from jaxgen.inference.bdmc import BDMCResult, bdmc, reverse_ais
from jaxgen.inference.loglik import LogLikelihood, loglik
from jaxgen.inference.many import sample_each
from jaxgen.inference.sample import images, positions, sample
from jaxgen.inference.until import Converged
from jaxgen.models import load
from jaxgen.plotting import plots as plot
from jaxgen.sampler.checkpoint import Preempted, StoredRun, load_run
from jaxgen.sampler.results import AISResult, SampleResult
from jaxgen.target.adapters import Apply, Labelled
from jaxgen.target.conditions import (
    BernoulliPixels,
    Caption,
    ClassLogit,
    ClassLogSoftmax,
    ClassProbability,
    HiddenUnit,
    LowResolution,
    ObservedPixels,
    Operator,
    PoissonCounts,
)
from jaxgen.target.distributions import RandomLabel
from jaxgen.target.networks import Network, freeze
from jaxgen.target.observations import BernoulliObservation, GaussianObservation
from jaxgen.target.path import AnnealedPath, geometric_path, likelihood_path, tempered_prior_path
from jaxgen.target.posterior import Posterior
from jaxgen.target.priors import Box, Gaussian, ScorePrior, Sphere
from jaxgen.tempering import betas as schedules
from jaxgen.tempering import step_size as adapt

if TYPE_CHECKING:  # a module that may be called, which type checkers do not know
    from jaxgen.report.results import report
else:
    import jaxgen.report as report

__all__ = [
    "AISResult",
    "Annealed",
    "AnnealedPath",
    "Apply",
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
    "Converged",
    "Diagnosis",
    "Gaussian",
    "GaussianObservation",
    "HiddenUnit",
    "InputError",
    "Labelled",
    "LogLikelihood",
    "LowResolution",
    "Network",
    "ObservedPixels",
    "Operator",
    "PoissonCounts",
    "Posterior",
    "Preempted",
    "RandomLabel",
    "SampleResult",
    "ScorePrior",
    "Sphere",
    "StoredRun",
    "adapt",
    "ais",
    "annealed",
    "ascend",
    "baselines",
    "bdmc",
    "calibrate",
    "diagnose",
    "examples",
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
    "posteriors",
    "ppgn",
    "report",
    "reverse_ais",
    "sample",
    "sample_each",
    "schedules",
    "tasks",
    "tempered_prior_path",
    "to_arviz",
]

aliases.install()
