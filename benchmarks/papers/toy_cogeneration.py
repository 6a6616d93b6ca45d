"""The toy of the co-generation paper (Fang & Schwing 2019, Sec. 3): x2 = 0 is observed, what is x1?

A generator of five Gaussians on the unit circle, at four stages of its training. One mode,
(1, 0), agrees with the observation. Each method reports the fraction of its 100 chains (by
weight, where it has weights) within 0.2 of that mode, beside the truth: the posterior mass
there by brute force over a million prior draws.

  default      sample(key, posterior): adaptive betas, HMC, adapted step
  paper        6000 raw sigmoid(-10, 2) temperatures, HMC(10), shared step times 1.02 or 0.98
  no annealing HMC(10) at the posterior from prior draws, as many steps, the same rule
  gd           gradient descent on |x_o - G(z)_o|^2 from one draw, 5000 steps of 0.01
  gd of 5000   the same from the best of 5000 draws

`equal` repeats this with as many gradients for each chain as `default` took: descent, the
best by the objective of five restarts that share the budget, and the paper's settings on a
shorter list; each with a histogram of the distance from (1, 0). `modes` says how much of the
posterior the chains found: regions of latents that hold 99% of the mass on a fine grid, the
share of those with more than 1% that at least one chain is in, and the share of such regions
that as many exact draws would be in.

`--figure PATH` draws the loss surfaces, gradient descent and samples as in Figures 1 to 3.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxgen
from jaxgen import adapt, kernels, schedules

STAGES = ("500", "1500", "2500", "15000")
VARIANCE = 5e-5
CHAINS = 100
# |x_o - G(z)_o|^2 is the log likelihood times -2 VARIANCE: this is a step of 0.01 on it.
DESCENT = optax.sgd(0.01 * 2 * VARIANCE)


def second_coordinate(x):
    """Return what is observed of a point x."""
    return x[1:]


def posterior_at(stage):
    """p(z | x2 = 0) under the generator of a training stage."""
    return jaxgen.Posterior(
        jaxgen.Gaussian.standard(2),
        jaxgen.load(f"toy2d/gan-{stage}"),
        jaxgen.Operator(jnp.zeros(1), jnp.float32(np.sqrt(VARIANCE)), forward=second_coordinate),
    )


def points(posterior, z):
    """G(z) for latents `[..., 2]`."""
    flat = jnp.reshape(z, (-1, 2))
    return np.asarray(jax.vmap(posterior.image)(flat)).reshape(np.shape(z))


def at_optimum(posterior, z, weights=None):
    """Return the (weighted) fraction of latents `[N, 2]` within 0.2 of the mode (1, 0)."""
    near = np.linalg.norm(points(posterior, z) - [1.0, 0.0], axis=-1) < 0.2
    return float(np.mean(near) if weights is None else np.asarray(weights) @ near)


def truth(posterior, num_draws):
    """Posterior mass at the optimum, and log Z, by brute force over prior draws."""
    z = jax.random.normal(jax.random.key(12345), (num_draws, 2))
    log_likelihood = jax.vmap(posterior.log_likelihood)(z)
    weights = np.asarray(jax.nn.softmax(log_likelihood), np.float64)
    log_z = float(jax.nn.logsumexp(log_likelihood) - np.log(num_draws))
    return at_optimum(posterior, z, weights / weights.sum()), log_z


def default(posterior, key):
    """`sample` with nothing but the number of chains."""
    result = jaxgen.sample(key, posterior, num_chains=CHAINS)
    return result.position, result.weights, int(result.num_gradients.max()), result


def paper(posterior, key, temperatures):
    """Return the paper's settings; weights, which the paper does not use, are shown apart."""
    result = jaxgen.ais(
        key,
        posterior,
        kernels.HMC(10),
        schedules.sigmoid(temperatures, -10, 2, rescale=False),
        num_chains=CHAINS,
        step_size=adapt.CoGeneration(),
    )
    return result.position, jax.nn.softmax(result.log_weight), int(result.num_gradients.max())


def no_annealing(posterior, key, steps):
    """HMC at the posterior, from prior draws."""
    result = jaxgen.ais(
        key,
        posterior,
        kernels.HMC(10),
        [0.0, 1.0],
        num_chains=CHAINS,
        num_mcmc_steps=steps,
        step_size=adapt.CoGeneration(),
    )
    return result.position, int(result.num_gradients.max())


def descend(posterior, key, steps, best_of):
    """Gradient descent on the observed part alone."""
    result = jaxgen.ascend(
        key,
        posterior,
        DESCENT,
        num_chains=CHAINS,
        num_steps=steps,
        prior_weight=0.0,
        best_of=best_of,
    )
    return result.position


EDGES = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5, np.inf)


def histogram(posterior, z, weights=None):
    """Return the (weighted) fraction of chains at distances from (1, 0), between `EDGES`."""
    distance = np.linalg.norm(points(posterior, z) - [1.0, 0.0], axis=-1)
    weights = np.full(len(distance), 1 / len(distance)) if weights is None else weights
    return np.histogram(distance, EDGES, weights=np.asarray(weights))[0]


def restarts(posterior, key, steps, count=5):
    """Return the best of `count` descents that share `steps` steps, by what was seen alone."""
    position, objective = [], []
    for k in range(count):
        found = jaxgen.ascend(
            jax.random.fold_in(key, k),
            posterior,
            DESCENT,
            num_chains=CHAINS,
            num_steps=max(1, steps // count),
            prior_weight=0.0,
        )
        position.append(np.asarray(found.position))
        objective.append(found.objective)
    best = np.argmax(objective, axis=0)
    return jnp.asarray(np.asarray(position)[best, np.arange(CHAINS)])


def modes_of(posterior, smoke):
    """Return (labels on a grid, masses) of the regions that hold 99% of the posterior."""
    from scipy import ndimage

    half, count = 4.5, 301 if smoke else 2401
    side = jnp.linspace(-half, half, count)
    log_density = jax.jit(
        lambda target, line: jax.lax.map(
            lambda y: jax.vmap(lambda x: target(jnp.stack([x, y])))(side), line
        )
    )(posterior, side)
    density = np.asarray(jax.nn.softmax(log_density.ravel()), np.float64)
    order = np.argsort(density)[::-1]
    kept = np.zeros(density.shape, bool)
    kept[order[: np.searchsorted(np.cumsum(density[order]), 0.99) + 1]] = True
    # Ridges are thin: regions that almost touch are one.
    near = ndimage.binary_dilation(kept.reshape(log_density.shape), np.ones((3, 3)), 3)
    labels, number = ndimage.label(near, np.ones((3, 3)))
    mass = ndimage.sum(density.reshape(labels.shape), labels, range(1, number + 1))
    return labels, np.asarray(mass), (half, count)


def coverage(regions, z):
    """Return the share of the regions with more than 1% of the mass that hold a chain."""
    labels, mass, (half, count) = regions
    cell = np.clip(np.round((np.asarray(z) + half) / (2 * half) * (count - 1)), 0, count - 1)
    found = set(labels[cell[:, 1].astype(int), cell[:, 0].astype(int)].tolist())
    large = np.flatnonzero(mass > 0.01)
    exact = np.mean(1 - (1 - mass[large]) ** len(z))
    return float(np.mean([k + 1 in found for k in large])), float(exact), len(large)


def at_equal_cost(posterior, key, regions):
    """Success, histogram and modes of each method at the default's number of gradients."""
    position, weights, gradients, _ = default(posterior, key)
    shorter = max(2, gradients // 10)
    found = {
        "default": (position, weights),
        "gd": (descend(posterior, key, gradients, 1), None),
        "gd_restarts": (restarts(posterior, key, gradients), None),
        "paper": (paper(posterior, key, shorter)[0], None),
        "no_annealing": (no_annealing(posterior, key, shorter)[0], None),
    }
    result = {"gradients": gradients}
    for name, (z, w) in found.items():
        result[name] = {
            "success": at_optimum(posterior, z, w),
            "histogram": np.round(histogram(posterior, z, w), 3).tolist(),
            "modes": coverage(regions, z)[0],
        }
    result["modes_by_exact_draws"], result["num_modes"] = coverage(regions, position)[1:]
    return result


def averaged(results):
    """Return the mean over seeds of what `at_equal_cost` found."""

    def mean(*values):
        return np.round(np.mean(values, axis=0), 3).tolist()

    # Histograms are lists: leaves here.
    return jax.tree.map(mean, *results, is_leaf=lambda x: isinstance(x, list))


def figure(path, seed):
    """Loss surfaces with descent and samples, one column for each stage."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    side = jnp.linspace(-3.0, 3.0, 241)
    grid = jnp.stack(jnp.meshgrid(side, side), axis=-1)
    fig, axes = plt.subplots(3, 4, figsize=(13, 9.6), constrained_layout=True)
    for column, stage in enumerate(STAGES):
        posterior = posterior_at(stage)
        loss = points(posterior, grid)[..., 1] ** 2
        result = jaxgen.sample(jax.random.key(seed), posterior, num_chains=CHAINS)
        descent = descend(posterior, jax.random.key(seed), 5000, 1)
        prior = jax.random.normal(jax.random.key(1), (2000, 2))
        top, middle, bottom = axes[:, column]
        for axis, z, colour, label in (
            (top, descent, "tab:red", "gradient descent"),
            (middle, result.position, "tab:orange", "posterior samples"),
        ):
            axis.imshow(
                np.log10(loss + 1e-6), extent=(-3, 3, -3, 3), origin="lower", cmap="viridis"
            )
            axis.plot(*np.asarray(z).T, ".", color=colour, markersize=5, label=label)
            axis.set(xlim=(-3, 3), ylim=(-3, 3), xticks=[], yticks=[])
        top.set_title(f"{stage} iterations")
        bottom.plot(*points(posterior, prior).T, ",", color="0.6", label="G(z), z from the prior")
        bottom.plot(*points(posterior, descent).T, ".", color="tab:red", label="gradient descent")
        bottom.plot(
            *points(posterior, result.position).T, ".", color="tab:orange", label="posterior"
        )
        bottom.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
        bottom.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal")
    axes[0, 0].set_ylabel("z: log loss, gradient descent")
    axes[1, 0].set_ylabel("z: log loss, posterior samples")
    axes[2, 0].set_ylabel("x: both")
    axes[2, 0].legend(fontsize=7, loc="lower left")
    fig.savefig(path, dpi=80)


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--figure", help="also draw the figure into this file")
    args = options.parse_args()
    seeds = range(args.seed, args.seed + (1 if args.smoke else 5))
    steps = 60 if args.smoke else 6000
    draws = 10_000 if args.smoke else 1_000_000
    best_of = 50 if args.smoke else 5000
    rows = []
    for stage in STAGES[-1:] if args.smoke else STAGES:
        posterior = posterior_at(stage)
        mass, log_z = truth(posterior, draws)
        row = {"stage": int(stage), "truth": round(mass, 4), "log_z": round(log_z, 3)}
        found = {name: [] for name in ("default", "default_log_z", "default_gradients")}
        others = {name: [] for name in ("paper", "paper_weighted", "no_annealing", "gd", "gd_5000")}
        regions = modes_of(posterior, args.smoke)
        row["equal"] = averaged(
            [at_equal_cost(posterior, jax.random.key(seed), regions) for seed in seeds]
        )
        for seed in seeds:
            key = jax.random.key(seed)
            position, weights, gradients, result = default(posterior, key)
            found["default"].append(at_optimum(posterior, position, weights))
            found["default_log_z"].append(result.log_z)
            found["default_gradients"].append(gradients)
            position, weights, gradients = paper(posterior, key, steps)
            others["paper"].append(at_optimum(posterior, position))
            others["paper_weighted"].append(at_optimum(posterior, position, weights))
            row["paper_gradients"] = gradients
            position, row["no_annealing_gradients"] = no_annealing(posterior, key, steps)
            others["no_annealing"].append(at_optimum(posterior, position))
            others["gd"].append(at_optimum(posterior, descend(posterior, key, 5000, 1)))
            others["gd_5000"].append(at_optimum(posterior, descend(posterior, key, 5000, best_of)))
        rows.append(row | {k: [round(float(x), 3) for x in v] for k, v in (found | others).items()})
    last = rows[-1]
    common.report(
        "toy_cogeneration",
        chains=CHAINS,
        seeds=len(seeds),
        default_at_least_098_on_each_seed=min(last["default"]) >= 0.98,
        default_at_most_1000_gradients=max(last["default_gradients"]) <= 1000,
        success={
            row["stage"]: {k: round(float(np.mean(row[k])), 3) for k in ("default", "paper")}
            for row in rows
        },
        times_fewer_gradients_than_the_paper={
            row["stage"]: round(row["paper_gradients"] / float(np.mean(row["default_gradients"])))
            for row in rows
        },
        histogram_edges=[*EDGES[:-1], None],
        rows=rows,
    )
    if args.figure:
        figure(args.figure, args.seed)


if __name__ == "__main__":
    main()
