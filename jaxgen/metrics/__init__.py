"""Figures of merit: of reconstructions, of the diversity of images, of two samples' distance.

Pure functions of arrays, jitted. Scores that need a network of their own (a
judge that had no part in the sampling) take its outputs, not the network.
"""

from jaxgen.metrics.distances import (
    PermutationTest,
    energy_distance,
    energy_permutation_test,
    frechet_distance,
    frechet_distance_from_moments,
    median_bandwidth,
    mmd,
    mmd_permutation_test,
)
from jaxgen.metrics.diversity import (
    DiversityResult,
    jackknife_standard_error,
    pairwise_similarity,
    within_class_diversity,
)
from jaxgen.metrics.perceptual import AlexNetFeatures, alexnet, perceptual_distance
from jaxgen.metrics.reconstruction import (
    Closeness,
    Regions,
    ms_ssim,
    ms_ssim_scales,
    mse,
    psnr,
    regions,
    ssim,
)

__all__ = [
    "AlexNetFeatures",
    "Closeness",
    "DiversityResult",
    "PermutationTest",
    "Regions",
    "alexnet",
    "energy_distance",
    "energy_permutation_test",
    "frechet_distance",
    "frechet_distance_from_moments",
    "jackknife_standard_error",
    "median_bandwidth",
    "mmd",
    "mmd_permutation_test",
    "ms_ssim",
    "ms_ssim_scales",
    "mse",
    "pairwise_similarity",
    "perceptual_distance",
    "psnr",
    "regions",
    "ssim",
    "within_class_diversity",
]
