"""Distances between two sets of samples: Frechet, kernel MMD, energy; permutation tests.

Samples are rows: `[n, D]`, or `[n, ...]`, which is flattened. The unbiased estimates may
come out slightly negative when the two distributions agree.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.errors import expected
from jaxgen.core.types import Array, PRNGKey, Scalar

__all__ = [
    "PermutationTest",
    "energy_distance",
    "energy_permutation_test",
    "frechet_distance",
    "frechet_distance_from_moments",
    "median_bandwidth",
    "mmd",
    "mmd_permutation_test",
]


class PermutationTest(NamedTuple):
    """A two-sample test.

    Attributes:
      statistic: the unbiased distance between the samples.
      p_value: `(1 + #{permuted >= observed}) / (1 + num_permutations)`.
    """

    statistic: Array
    p_value: Array


@jax.jit
def frechet_distance(features_a: Array, features_b: Array) -> Array:
    """Squared Frechet distance between Gaussians fitted to two sets of features.

    `||m_a - m_b||^2 + tr(S_a) + tr(S_b) - 2 tr((S_a S_b)^{1/2})` with sample covariances
    (divided by n - 1): Heusel et al. (NeurIPS 2017), Eq. 6, which on Inception features is
    the FID. Its estimate is biased upwards by a small n: compare equal n only.

    The covariances are never formed. With triangular roots `S = R^T R / (n - 1)` of the
    centred features, the last trace is the nuclear norm of `R_a R_b^T`; so fewer samples
    than features cause no roots of rounding errors, which they do otherwise.

    Args:
      features_a: `[n, D]`, n at least 2.
      features_b: `[m, D]`, m at least 2.
    """
    a, b = _samples(features_a, features_b)
    mean_a, mean_b = jnp.mean(a, axis=0), jnp.mean(b, axis=0)
    root_a, root_b = _root(a - mean_a[None]), _root(b - mean_b[None])
    product = jnp.matmul(root_a, root_b.T, precision=jax.lax.Precision.HIGHEST)
    cross = jnp.sum(jnp.linalg.svd(product, compute_uv=False))
    spread = jnp.sum(root_a**2) + jnp.sum(root_b**2) - 2.0 * cross
    return jnp.sum((mean_a - mean_b) ** 2) + spread


@jax.jit
def frechet_distance_from_moments(
    mean_a: Array, covariance_a: Array, mean_b: Array, covariance_b: Array
) -> Array:
    """Squared Frechet distance between two Gaussians: `frechet_distance` with known moments.

    The trace of `(S_a S_b)^{1/2}` is that of the symmetric `(S_a^{1/2} S_b S_a^{1/2})^{1/2}`,
    by eigendecomposition, negative eigenvalues of rounding counted as 0. Covariances that
    are singular lose half of the digits here: prefer `frechet_distance` on features.

    Args:
      mean_a: `[D]`.
      mean_b: likewise.
      covariance_a: `[D, D]`, symmetric positive semi-definite.
      covariance_b: likewise.
    """
    shape = (*jnp.shape(mean_a), *jnp.shape(mean_a))
    for name, got, wanted in (
        ("covariance_a", covariance_a, shape),
        ("mean_b", mean_b, jnp.shape(mean_a)),
        ("covariance_b", covariance_b, shape),
    ):
        if jnp.shape(got) != wanted or jnp.ndim(mean_a) != 1:
            raise expected(name, f"shape {wanted} for means [D]", f"shape {jnp.shape(got)}")
    values, vectors = jnp.linalg.eigh(covariance_a)
    with jax.default_matmul_precision("highest"):
        root = (vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None, :]) @ vectors.T
        inner = root @ covariance_b @ root
    eigenvalues = jnp.linalg.eigvalsh((inner + inner.T) / 2)
    cross = jnp.sum(jnp.sqrt(jnp.maximum(eigenvalues, 0.0)))
    traces = jnp.trace(covariance_a) + jnp.trace(covariance_b)
    return jnp.sum((mean_a - mean_b) ** 2) + traces - 2.0 * cross


@jax.jit
def median_bandwidth(x: Array, y: Array) -> Array:
    """Return the median heuristic: the median distance between two of the pooled samples."""
    x, y = _samples(x, y)
    return _median_bandwidth(_squared_distances(jnp.concatenate([x, y])))


@jax.jit
def mmd(
    x: Array, y: Array, *, bandwidth: Scalar | None = None, weights: Array | None = None
) -> Array:
    """Squared maximum mean discrepancy with a Gaussian kernel, unbiased.

    `mean_{i!=j} k(x_i, x_j) + mean_{i!=j} k(y_i, y_j) - 2 mean_{i,j} k(x_i, y_j)`, with
    `k(a, b) = exp(-||a - b||^2 / (2 bandwidth^2))`. Source: Gretton et al. (JMLR 2012),
    Eq. 3. Unbiased for a fixed bandwidth.

    Args:
      x: `[n, D]`, n at least 2.
      y: `[m, D]`, m at least 2.
      bandwidth: in units of distance; None for `median_bandwidth(x, y)`, unweighted.
      weights: `[n]` non-negative weights of x, normalised or not, for importance samples.
        Means over x become weighted means (over pairs, by products of weights): consistent,
        and unbiased only for weights that do not depend on x.

    Returns:
      A scalar.
    """
    x, y = _samples(x, y)
    distances = _squared_distances(jnp.concatenate([x, y]))
    if bandwidth is None:
        bandwidth = _median_bandwidth(distances)
    first = _first_sample(x, y)
    if weights is not None:
        if jnp.shape(weights) != x.shape[:1]:
            raise expected("weights", f"shape {x.shape[:1]}", f"shape {jnp.shape(weights)}")
        first = first.at[: x.shape[0]].set(jnp.asarray(weights, x.dtype))
    second = 1.0 - _first_sample(x, y)
    return _discrepancy(_off_diagonal(_gaussian_kernel(distances, bandwidth)), first, second)


@partial(jax.jit, static_argnames="num_permutations")
def mmd_permutation_test(
    key: PRNGKey,
    x: Array,
    y: Array,
    num_permutations: int = 999,
    *,
    bandwidth: Scalar | None = None,
) -> PermutationTest:
    """Test of whether x and y come from one distribution, by `mmd` and relabelling.

    The pooled kernel matrix `[n + m, n + m]` is computed once, all relabellings by one
    product with it (`num_permutations * (n + m)` numbers); the median bandwidth depends
    on the pool alone, so the test keeps its level exactly: `P(p <= a) <= a` whenever the
    pooled samples are exchangeable.

    **Independent samples only.** The draws of a Markov chain are not exchangeable: thin them
    beyond their autocorrelation or take one from each chain. There is no `weights` argument
    for the same reason: weighted samples follow their proposal, not the target that is
    tested, and resampling them makes copies; the test would not keep its level.

    Args:
      key: consumed.
      x: `[n, D]`, n at least 2.
      y: `[m, D]`, m at least 2.
      num_permutations: the smallest possible p-value is `1 / (1 + num_permutations)`.
      bandwidth: None for the median heuristic; a given one must not be tuned on x and y.
    """
    x, y = _samples(x, y)
    distances = _squared_distances(jnp.concatenate([x, y]))
    if bandwidth is None:
        bandwidth = _median_bandwidth(distances)
    kernel = _gaussian_kernel(distances, bandwidth)
    return _permutation_test(key, kernel, _first_sample(x, y), num_permutations)


@partial(jax.jit, static_argnames="unbiased")
def energy_distance(x: Array, y: Array, *, unbiased: bool = True) -> Array:
    """Energy distance `2 E|X - Y| - E|X - X'| - E|Y - Y'|` with Euclidean norms.

    Zero only for equal distributions; no bandwidth to choose. Source: Szekely & Rizzo,
    "Energy statistics" (2013), Eq. 2. For one dimension, `scipy.stats.energy_distance`
    is the square root of the biased estimate.

    Args:
      x: `[n, D]`, n at least 2.
      y: `[m, D]`, m at least 2.
      unbiased: leave out the distance of a sample from itself. The other estimate is never
        negative, and above 0 on average for equal distributions.
    """
    x, y = _samples(x, y)
    kernel = _energy_kernel(x, y)
    first = _first_sample(x, y)
    return _discrepancy(kernel, first, 1.0 - first, distinct=unbiased)


@partial(jax.jit, static_argnames="num_permutations")
def energy_permutation_test(
    key: PRNGKey, x: Array, y: Array, num_permutations: int = 999
) -> PermutationTest:
    """`mmd_permutation_test` with the energy distance: the same conditions hold."""
    x, y = _samples(x, y)
    kernel = _energy_kernel(x, y)
    return _permutation_test(key, kernel, _first_sample(x, y), num_permutations)


def _permutation_test(
    key: PRNGKey, kernel: Array, first: Array, num_permutations: int
) -> PermutationTest:
    """Relabel the rows of a pooled kernel matrix; `first` is 1 for the rows of x."""
    if num_permutations < 1:
        raise expected("num_permutations", "at least 1", num_permutations)
    size = first.shape[0]
    kernel = _off_diagonal(kernel)
    # A constant on all pairs changes no discrepancy, but sums lose fewer digits without it.
    mean = jnp.sum(kernel) / (size * (size - 1))
    kernel = _off_diagonal(kernel - mean)

    def relabelled(subkey: PRNGKey) -> Array:
        labels = jax.random.permutation(subkey, first)
        return _discrepancy(kernel, labels, 1.0 - labels)

    observed = _discrepancy(kernel, first, 1.0 - first)
    permuted = jax.vmap(relabelled)(jax.random.split(key, num_permutations))
    # Equal sums in another order differ by rounding: those are ties and count as >=.
    slack = 8 * jnp.finfo(kernel.dtype).eps * (jnp.abs(mean) + jnp.max(jnp.abs(kernel)))
    exceed = jnp.sum(permuted >= observed - slack)
    return PermutationTest(observed, (1.0 + exceed) / (1.0 + num_permutations))


def _discrepancy(kernel: Array, first: Array, second: Array, *, distinct: bool = True) -> Array:
    """`mean k(x, x') + mean k(y, y') - 2 mean k(x, y)` for weights of the pooled rows.

    With `distinct`, pairs of a sample with itself do not count; the matrix must then have
    a zero diagonal, or one that vanishes anyway.
    """
    weights = jnp.stack([first, second])
    sums = jnp.matmul(
        jnp.matmul(weights, kernel, precision=jax.lax.Precision.HIGHEST),
        weights.T,
        precision=jax.lax.Precision.HIGHEST,
    )
    totals = jnp.sum(weights, axis=1)
    pairs = totals**2
    if distinct:
        pairs = pairs - jnp.sum(weights**2, axis=1)
    return sums[0, 0] / pairs[0] + sums[1, 1] / pairs[1] - 2 * sums[0, 1] / jnp.prod(totals)


def _squared_distances(samples: Array) -> Array:
    """`[N, N]`, row by row, by differences: the Gram-matrix formula cancels in float32."""
    return jax.lax.map(lambda row: jnp.sum((samples - row[None]) ** 2, axis=1), samples)


def _median_bandwidth(squared_distances: Array) -> Array:
    size = squared_distances.shape[0]
    # Sorted, the diagonal comes first and every pair twice, which moves no median.
    ordered = jnp.sort(squared_distances - jnp.diag(jnp.full(size, jnp.inf)), axis=None)
    middle = size + size * (size - 1) // 2
    return (jnp.sqrt(ordered[middle - 1]) + jnp.sqrt(ordered[middle])) / 2


def _gaussian_kernel(squared_distances: Array, bandwidth: Scalar) -> Array:
    # With a bandwidth of 0 (half of the samples coincide) the kernel is "equal or not".
    scale = jnp.maximum(2.0 * jnp.asarray(bandwidth) ** 2, jnp.finfo(squared_distances.dtype).tiny)
    return jnp.exp(-squared_distances / scale)


def _energy_kernel(x: Array, y: Array) -> Array:
    """Minus the distances of the pool; the square root kept away from 0 for its gradient."""
    distances = _squared_distances(jnp.concatenate([x, y]))
    positive = distances > 0
    return -jnp.where(positive, jnp.sqrt(jnp.where(positive, distances, 1.0)), 0.0)


def _off_diagonal(kernel: Array) -> Array:
    return jnp.where(jnp.eye(kernel.shape[0], dtype=bool), 0.0, kernel)


def _first_sample(x: Array, y: Array) -> Array:
    """1 for the rows of x, 0 for those of y, in the pooled sample."""
    return jnp.concatenate([jnp.ones(x.shape[0], x.dtype), jnp.zeros(y.shape[0], x.dtype)])


def _root(centred: Array) -> Array:
    """`R` with `R^T R` the sample covariance of centred rows."""
    return jnp.linalg.qr(centred, mode="r") / jnp.sqrt(centred.shape[0] - 1.0)


def _samples(x: Array, y: Array) -> tuple[Array, Array]:
    """Return both samples as rows `[n, D]` of floats; raise `InputError` if they do not compare."""
    x, y = jnp.asarray(x), jnp.asarray(y)
    for name, array in (("first sample", x), ("second sample", y)):
        if array.ndim < 2 or array.shape[0] < 2:
            hint = "Give one-dimensional samples as [n, 1]."
            raise expected(name, "at least 2 rows [n, D]", f"shape {array.shape}", hint)
    if x.shape[1:] != y.shape[1:]:
        raise expected("second sample", f"rows of shape {x.shape[1:]}", f"shape {y.shape}")
    dtype = jnp.result_type(x, y, jnp.float32)
    return x.reshape(len(x), -1).astype(dtype), y.reshape(len(y), -1).astype(dtype)
