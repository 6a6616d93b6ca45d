"""Conditions: what was observed, as log likelihoods of ONE image.

A condition is called with the generator's image and returns a scalar. `a + b` observes
both, `2.0 * a` weighs one, and any function of an image can join: `a + (lambda x: ...)`.
A condition is *tempered* unless it says otherwise: annealing raises the tempered ones
from 0 to full strength and keeps the others at full strength throughout
(`condition.untempered()`).
"""

from jaxgen.target.conditions.algebra import (
    Condition,
    Function,
    Sum,
    Term,
    Untempered,
    Weighted,
    as_condition,
    split_tempered,
)
from jaxgen.target.conditions.captions import Caption
from jaxgen.target.conditions.classes import (
    ClassLogit,
    ClassLogSoftmax,
    ClassProbability,
    HiddenUnit,
)
from jaxgen.target.conditions.counts import PoissonCounts
from jaxgen.target.conditions.noise import GaussianNoise, LearnedNoise, NoiseLevels
from jaxgen.target.conditions.operators import (
    BoxAverage,
    Convolution,
    Fourier,
    GaussianBlur,
    Intensity,
    Matrix,
    RandomProjection,
    Stride,
)
from jaxgen.target.conditions.pixels import (
    BernoulliPixels,
    LowResolution,
    ObservedPixels,
    Operator,
    average_pool,
    stride_subsample,
)

__all__ = [
    "BernoulliPixels",
    "BoxAverage",
    "Caption",
    "ClassLogSoftmax",
    "ClassLogit",
    "ClassProbability",
    "Condition",
    "Convolution",
    "Fourier",
    "Function",
    "GaussianBlur",
    "GaussianNoise",
    "HiddenUnit",
    "Intensity",
    "LearnedNoise",
    "LowResolution",
    "Matrix",
    "NoiseLevels",
    "ObservedPixels",
    "Operator",
    "PoissonCounts",
    "RandomProjection",
    "Stride",
    "Sum",
    "Term",
    "Untempered",
    "Weighted",
    "as_condition",
    "average_pool",
    "split_tempered",
    "stride_subsample",
]
