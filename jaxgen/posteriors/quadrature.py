"""Integrals of one-dimensional densities on a grid, in float64.

Where a posterior falls apart into independent coordinates, each of them is a density p(u) on
a line. The trapezoidal rule on smooth densities that vanish at both ends converges faster
than any power of the spacing (Trefethen & Weideman, SIAM Review 56, 2014), so a grid finer
than the narrowest feature gives log Z and moments to rounding, and draws by the inverse of
the distribution function.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Lines", "integrate", "log_normal", "logsumexp"]


class Lines(NamedTuple):
    """K densities on one grid.

    Attributes:
      nodes: `[N]` evenly spaced points.
      weights: `[K, N]` probabilities of the nodes.
      log_z: `[K]` log integrals.
    """

    nodes: np.ndarray
    weights: np.ndarray
    log_z: np.ndarray

    def mean(self, values: np.ndarray | None = None) -> np.ndarray:
        """E[u] for each line, `[K]`, or the mean of values given at the nodes, `[N]`."""
        return self.weights @ (self.nodes if values is None else values)

    def variance(self) -> np.ndarray:
        """Var[u] for each line, `[K]`."""
        return self.weights @ self.nodes**2 - self.mean() ** 2

    def draws(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Independent draws `[count, K]`: the inverse distribution function of uniforms."""
        spacing = self.nodes[1] - self.nodes[0]
        # A node's mass is spread over the cell around it, so the function is known at edges.
        edges = np.append(self.nodes - spacing / 2, self.nodes[-1] + spacing / 2)
        result = np.empty((count, len(self.weights)))
        for k, weights in enumerate(self.weights):
            cumulative = np.append(0.0, np.cumsum(weights))
            result[:, k] = np.interp(rng.random(count) * cumulative[-1], cumulative, edges)
        return result


def integrate(log_density: np.ndarray, nodes: np.ndarray) -> Lines:
    """Normalise log densities `[K, N]` (or `[N]`) given at evenly spaced nodes `[N]`."""
    values = np.atleast_2d(log_density)
    total = logsumexp(values, axis=1)
    spacing = nodes[1] - nodes[0]
    return Lines(nodes, np.exp(values - total[:, None]), total + np.log(spacing))


def log_normal(x: np.ndarray, variance: np.ndarray | float = 1.0) -> np.ndarray:
    """log N(x; 0, variance), entry by entry."""
    return -0.5 * (x**2 / variance + np.log(2 * np.pi * variance))


def logsumexp(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """log sum exp along an axis, without overflow."""
    top = np.max(values, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.log(np.sum(np.exp(values - top), axis=axis, keepdims=True)) + top
    return np.squeeze(total, axis=axis)
