"""Do the tasks' 90% intervals hold hidden pixels, and how much does it take?

Images are drawn by the shipped DCGAN itself, and seen with Gaussian noise of a known level: all
but a hole of 10 by 10 (`hole`), the upper half (`half`), or means of 4 by 4 pixels (`4x`).
`jaxgen.tasks.inpaint` and `super_resolve` are given the true level and nothing else. The truth
is G(z) of the latent that was drawn, so the intervals of the exact posterior hold 90% of hidden
pixels (of all pixels for `4x`) on average over images.

For each run: the share of hidden pixels inside, gradients for each chain when the last annealing
ends at beta = 1, first states that chains descend from, log Z with its stated error, notes.
`--keys` repeats each image with several keys, and a chi-square test asks whether their log Z
differ by more than they state. `--gap T` bounds log Z from both sides, too (half and hole): T
temperatures from the mixture that the run has fitted to the posterior, and the same path backwards
from the latent that the image was drawn from, which is an exact draw of the posterior.

`--generator NAME` takes another network whose latents are standard normal, such as `digiface-dcgan`
(faces of 64 pixels; `jaxgen fetch` it first). Its hole is as large a part of the image.

`--sample-args '{"noise": "learn"}'` gives no level: `noise_levels` are the least and the largest
that are learned.

A row for each task, image and key goes into `--rows`; what is there already is not run again.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import chi2

import jaxgen
from jaxgen.core.pytree import pytree
from jaxgen.inference.bdmc import reverse_ais
from jaxgen.target.conditions import ObservedPixels, average_pool
from jaxgen.target.path import AnnealedPath, likelihood_path
from jaxgen.target.proposal import FittedMixture, bridged

NAME = "fashion-mnist/dcgan"
TASKS = ("half", "hole", "4x")
FACTOR = 4
LOW_COVERAGE = 0.75


@pytree
class Start:
    """A mixture, in the coordinates u in which its components have the identity as covariance."""

    mixture: FittedMixture

    def sample(self, key: Any) -> Any:
        """Return one draw."""
        return (self.mixture.sample(key) - self.mixture.mean) @ self.mixture.whiten

    def log_prob(self, u: Any) -> Any:
        """Return the log density of u; z = m + u @ colour changes the volume."""
        z = self.mixture.mean + u @ self.mixture.colour
        return self.mixture.log_prob(z) - self.mixture.log_volume

    def __call__(self, u: Any) -> Any:
        """Return the log density, as a path's base."""
        return self.log_prob(u)


@pytree
class Tilt:
    """log p(z) - log q(z), the volume of which is the same in both coordinates."""

    tilt: Any
    mixture: FittedMixture

    def __call__(self, u: Any) -> Any:
        """Return the difference at u."""
        return self.tilt(self.mixture.mean + u @ self.mixture.colour)


def bounds(
    key: Any, name: str, mixture: FittedMixture, condition: Any, z: Any, temperatures: int
) -> list[Any]:
    """Return the lower and the upper bound on log Z, each with its standard error."""
    prior = jaxgen.Gaussian.standard(z.shape[0])
    posterior = jaxgen.Posterior(prior, jaxgen.load(name), condition)
    way = bridged(likelihood_path(posterior), mixture, jnp.array(True))
    start = Start(mixture)
    path = AnnealedPath(start, Tilt(way.tilt, mixture), start)
    betas = jaxgen.schedules.linear(temperatures)
    keys, kernel = jax.random.split(key, 3), jaxgen.kernels.HMC(10, jitter=True)
    # The step is learned by a run of its own: one that learns from its chains is no bound.
    steps = jaxgen.ais(keys[0], path, kernel, jaxgen.schedules.linear(30), num_chains=16)
    step = float(np.median(steps.history.step_size))
    fixed = {"num_chains": 16, "step_size": step}
    lower = jaxgen.ais(keys[1], path, kernel, betas, **fixed)
    exact = (jnp.asarray(z) - mixture.mean) @ mixture.whiten
    upper = reverse_ais(keys[2], path, exact, kernel, betas, **fixed)
    return [
        float(x)
        for x in (
            lower.log_z,
            lower.log_z_standard_error,
            upper.log_z,
            upper.log_z_standard_error,
        )
    ]


def drawn(
    name: str, image: int, noise: float
) -> tuple[Any, np.ndarray, np.ndarray, np.random.Generator]:
    """Return a latent, its image, the image with noise, and the generator of the noise."""
    rng = np.random.default_rng(10_000 + image)
    z = rng.normal(size=jaxgen.models.describe(name).input_shape).astype(np.float32)
    truth = np.asarray(jaxgen.load(name)(jnp.asarray(z)))
    seen = truth + noise * rng.normal(size=truth.shape).astype(np.float32)
    return z, truth, seen, rng


def hidden_pixels(task: str, height: int, width: int) -> np.ndarray:
    """1 where a pixel is hidden, `[H, W]`; the hole is 10 by 10 of 28 by 28."""
    hidden = np.zeros((height, width), np.float32)
    hole = tuple(slice(round(9 * n / 28), round(19 * n / 28)) for n in (height, width))
    rows, columns = {
        "hole": hole,
        "half": (slice(height // 2, height), slice(0, width)),
        "4x": (slice(0, height), slice(0, width)),
    }[task]
    hidden[rows, columns] = 1
    return hidden


class Meter:
    """Gradients when annealing ends, as the progress callback is told."""

    def __init__(self) -> None:
        self.annealed: int | None = None

    def __call__(self, told: Any) -> None:
        """Keep what annealing has taken so far."""
        if told.phase == "anneal":
            self.annealed = told.num_gradients


def one(
    name: str, task: str, image: int, key: int, noise: float, gap: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Return a row: one image under one task with one key."""
    begun = time.perf_counter()
    z, truth, seen, rng = drawn(name, image, noise)
    meter, hidden = Meter(), hidden_pixels(task, *truth.shape[:2])
    common_args = {"noise": noise, "progress": meter, **settings}
    seed = jax.random.fold_in(jax.random.key(image), key)
    if task == "4x":
        view = np.asarray(average_pool(jnp.asarray(truth), FACTOR))
        view = view + noise * rng.normal(size=view.shape).astype(np.float32)
        found = jaxgen.tasks.super_resolve(seed, name, view, FACTOR, **common_args)
    else:
        found = jaxgen.tasks.inpaint(seed, name, seen, 1 - hidden, **common_args)
    inside = (truth >= found.low) & (truth <= found.high)
    chosen = hidden.astype(bool)
    result = found.result
    mixture, bounded = result.state.mixture, None
    # A volume of one is that of no mixture: the run was annealed from the prior.
    if gap and task != "4x" and mixture is not None and float(mixture.log_volume):
        mask = jnp.asarray(1 - hidden)
        condition = ObservedPixels(jnp.asarray(seen), mask, jnp.float32(noise))
        bounded = bounds(seed, name, mixture, condition, z, gap)
    return {
        "bounds": bounded,
        "inside": float(inside[chosen].mean()),
        "error": float(np.sqrt(np.mean((truth - found.mean)[chosen] ** 2))),
        "log_z": result.log_z,
        "stated": result.log_z_standard_error,
        "islands": np.asarray(result.island_log_z, float).round(3).tolist(),
        "ancestors": result.num_lineages,
        "annealed": meter.annealed,
        "gradients": float(np.mean(result.num_gradients)),
        "level": float(found.noise),
        "misfit": found.misfit,
        "notes": list(found.notes),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def summarised(task: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a line of the table: a task over images and keys."""
    images = sorted({row["image"] for row in rows})
    per_image = [np.mean([r["inside"] for r in rows if r["image"] == i]) for i in images]
    inside = np.array([row["inside"] for row in rows])
    noted = np.array([bool(row["notes"]) for row in rows])
    stated = np.array([row["stated"] for row in rows])
    low = inside < LOW_COVERAGE
    spread = float(np.std(per_image, ddof=1) / np.sqrt(len(images))) if len(images) > 1 else None
    line = {
        "task": task,
        "images": len(images),
        "runs": len(rows),
        "inside_90": float(np.mean(per_image)),
        "inside_se": spread,
        "inside_quartiles": np.quantile(inside, (0.25, 0.5, 0.75)).round(3).tolist(),
        "gradients_annealed": float(np.mean([row["annealed"] for row in rows])),
        "gradients": float(np.mean([row["gradients"] for row in rows])),
        "ancestors_median": float(np.median([row["ancestors"] for row in rows])),
        "ancestors_least": int(min(row["ancestors"] for row in rows)),
        "stated_median": float(np.median(stated)),
        "noted": float(noted.mean()),
        "low": int(low.sum()),
        "low_with_a_note": float(noted[low].mean()) if low.any() else None,
        "seconds": float(np.mean([row["seconds"] for row in rows])),
    }
    levels = [row["level"] for row in rows if "level" in row]
    if levels:
        line["noise_levels"] = [round(min(levels), 4), round(max(levels), 4)]
    bounded = np.array([row["bounds"] for row in rows if row.get("bounds")])
    if len(bounded):
        gaps = bounded[:, 2] - bounded[:, 0]
        line["gap"], line["gap_largest"] = float(gaps.mean()), float(gaps.max())
        of = [row["log_z"] for row in rows if row.get("bounds")]
        line["above_lower"] = float(np.mean(of - bounded[:, 0]))
        line["below_upper"] = float(np.mean(bounded[:, 2] - of))
    return line | agreement(rows)


def agreement(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Chi-square of log Z over the keys of each image, pooled over images."""
    total, degrees, spreads = 0.0, 0, []
    for image in {row["image"] for row in rows}:
        mine = [row for row in rows if row["image"] == image]
        if len(mine) < 2:
            continue
        log_z = np.array([row["log_z"] for row in mine])
        weight = 1 / np.array([row["stated"] for row in mine]) ** 2
        total += float(np.sum(weight * (log_z - weight @ log_z / weight.sum()) ** 2))
        degrees += len(mine) - 1
        spreads.append(float(log_z.std(ddof=1)))
    if not degrees:
        return {}
    return {
        "log_z_spread": float(np.mean(spreads)),
        "chi_square": total,
        "degrees": degrees,
        "p": float(chi2.sf(total, degrees)),
    }


def main() -> None:
    """Run what is missing, and print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--tasks", default=",".join(TASKS), help="with commas")
    options.add_argument("--images", type=int, default=40)
    options.add_argument("--keys", type=int, default=1, help="runs of each image (1)")
    options.add_argument("--gap", type=int, default=0, help="temperatures of the bounds (none)")
    options.add_argument("--noise", type=float, default=0.05)
    options.add_argument("--sample-args", default="{}", help="JSON: arguments for the task")
    options.add_argument("--generator", default=NAME, help="by name (%(default)s)")
    options.add_argument("--rows", help="the file of rows, read and appended to")
    options.add_argument("--table", action="store_true", help="run nothing")
    args = options.parse_args()
    settings = json.loads(args.sample_args)
    tasks = args.tasks.split(",")
    for task in tasks:
        if task not in TASKS:
            options.error(f"--tasks: expected some of {', '.join(TASKS)}; got {task}")
    if args.smoke:
        args.images, tasks = 1, tasks[:1]
        settings = {"num_chains": 16, "num_steps": 4, "betas": np.linspace(0, 1, 4)}
    file = None if args.rows is None else Path(args.rows)
    rows: list[dict[str, Any]] = []
    if file is not None and file.exists():
        rows = [json.loads(line) for line in file.read_text().splitlines() if line]
    head = {"noise": args.noise, "options": json.dumps(json.loads(args.sample_args))}
    if args.generator != NAME:
        head["generator"] = args.generator
    rows = [row for row in rows if row.get("generator", NAME) == args.generator]
    done = {(r["task"], r["image"], r["key"]) for r in rows if head.items() <= r.items()}
    for image in range(args.seed, args.seed + args.images):
        for key in range(args.keys):
            for task in tasks:
                if args.table or (task, image, key) in done:
                    continue
                row = {"task": task, "image": image, "key": key, **head}
                gap = args.gap if not key else 0
                row |= one(args.generator, task, image, key, args.noise, gap, settings)
                rows.append(row)
                print(row, file=sys.stderr, flush=True)
                if file is not None:
                    with file.open("a") as sink:
                        sink.write(json.dumps(row) + "\n")
    rows = [row for row in rows if head.items() <= row.items()]
    lines = [
        summarised(task, mine)
        for task in tasks
        if (mine := [row for row in rows if row["task"] == task])
    ]
    common.report("coverage", noise=args.noise, rows=lines)


if __name__ == "__main__":
    main()
