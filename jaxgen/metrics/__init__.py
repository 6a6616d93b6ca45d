"""Figures of merit: of reconstructions, of the diversity of images, of two samples' distance.

Pure functions of arrays, jitted. Scores that need a network of their own (a
judge that had no part in the sampling) take its outputs, not the network.
"""

from jaxgen.metrics.classification import (
    ClassifierScore,
    classifier_accuracy,
    classifier_score,
    conditional_agreement,
    expected_calibration_error,
    feature_frechet_distance,
)
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
    ClassSimilarity,
    DiversityResult,
    class_similarity,
    jackknife_standard_error,
    pairwise_similarity,
    share_of_diverse_classes,
    within_class_diversity,
)
from jaxgen.metrics.manifolds import PrecisionRecall, precision_recall
from jaxgen.metrics.mixing import (
    ModesVisited,
    autocorrelation,
    integrated_time,
    modes_visited,
)
from jaxgen.metrics.perceptual import AlexNetFeatures, alexnet, perceptual_distance
from jaxgen.metrics.realism import (
    LatentTypicality,
    ScoreDistance,
    latent_typicality,
    score_distance,
    super_stimulus_index,
)
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
    "ClassSimilarity",
    "ClassifierScore",
    "Closeness",
    "DiversityResult",
    "LatentTypicality",
    "ModesVisited",
    "PermutationTest",
    "PrecisionRecall",
    "Regions",
    "ScoreDistance",
    "alexnet",
    "autocorrelation",
    "class_similarity",
    "classifier_accuracy",
    "classifier_score",
    "conditional_agreement",
    "energy_distance",
    "energy_permutation_test",
    "expected_calibration_error",
    "feature_frechet_distance",
    "frechet_distance",
    "frechet_distance_from_moments",
    "integrated_time",
    "jackknife_standard_error",
    "latent_typicality",
    "median_bandwidth",
    "mmd",
    "mmd_permutation_test",
    "modes_visited",
    "ms_ssim",
    "ms_ssim_scales",
    "mse",
    "pairwise_similarity",
    "perceptual_distance",
    "precision_recall",
    "psnr",
    "regions",
    "score_distance",
    "share_of_diverse_classes",
    "ssim",
    "super_stimulus_index",
    "within_class_diversity",
]
