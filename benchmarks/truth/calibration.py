"""Do 90% intervals hold the truth 90% of the time?

Targets are drawn by each model itself (latent from the prior, image, noise) and their lower
half is hidden; `jaxgen.sample` draws from the posterior given the upper half; the truth is
ranked among draws thinned to about independent ones. Coverage of latents and of hidden pixels
with standard errors over targets, chi-square tests of the ranks' uniformity (Bonferroni over
quantities), R-hat, and the gradients that it took. A linear-Gaussian model comes first, whose
draws must pass.

With --rows FILE finished rows are kept, and a later run goes on after them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen import kernels, schedules
from jaxgen.diagnostics import effective_sizes, split_rhat
from jaxgen.diagnostics.calibration import calibrate, density, latent
from jaxgen.inference.bdmc import DecoderPaths
from jaxgen.models.registry import describe
from jaxgen.posteriors.linear_gaussian import Affine
from jaxgen.target.observations import GaussianObservation


def settings(name, smoke):
    """Arguments of `jaxgen.sample` by name."""
    if smoke:
        return {
            "kernel": kernels.HMC(3, jitter=True),
            "num_chains": 8,
            "num_steps": 8,
            "thin": 2,
            "betas": schedules.linear(4),
        }
    long = {"num_steps": 40, "thin": 2, "warmup": 20}
    return {
        "default": {},
        "diagonal-L10": {"precondition": "diagonal"},
        "diagonal-L30": {
            "kernel": kernels.HMC(30, jitter=True),
            "precondition": "diagonal",
            **long,
        },
        "dense-L10": {"precondition": "dense"},
        "dense-L20": {"kernel": kernels.HMC(20, jitter=True), "precondition": "dense", **long},
        "dense-L30": {
            "kernel": kernels.HMC(30, jitter=True),
            "precondition": "dense",
            "betas": schedules.Adaptive(cess=0.95),
            **long,
        },
        "score-L10": {"precondition": "score", **long},
        "score-L20": {"kernel": kernels.HMC(20, jitter=True), "precondition": "score", **long},
    }[name]


def problem(name, mask_rows, noise):
    """Return the model, and which of its pixels are hidden."""
    if name == "linear":
        rng = np.random.default_rng(0)
        matrix = jnp.asarray(rng.normal(size=(8, 5)) / np.sqrt(5), jnp.float32)
        prior = jaxgen.Gaussian.standard(5)
        mask = jnp.asarray((np.arange(8) < 6)[:, None], jnp.float32)
        generator = Affine(matrix, jnp.zeros(8))
        return DecoderPaths(prior, generator, GaussianObservation(0.3, mask)), mask
    info = describe(name)
    sigma = noise if noise is not None else info.metadata.get("sigma", 0.1)
    mask = np.ones(info.output_shape[:2], np.float32)
    mask[mask_rows:] = 0
    observation = GaussianObservation(float(sigma), jnp.asarray(mask))
    prior = jaxgen.Gaussian.standard(info.input_shape)
    return DecoderPaths(prior, jaxgen.load(name), observation), mask


def one(args, model, name):
    """Return a row: one model under one setting."""
    begun = time.perf_counter()
    paths, mask = problem(model, 14, args.noise)
    hidden = jnp.asarray(np.flatnonzero(np.asarray(mask).reshape(-1) == 0))
    chosen = settings(name, args.smoke)
    targets = 4 if args.smoke else args.targets or {"linear": 200}.get(model, 40)

    def sampler(key, posterior):
        return jaxgen.sample(key, posterior, **chosen)

    def pixels(posterior, z, image):
        return image.reshape(-1)[hidden]

    def keep(result):
        rhat = split_rhat(result.draws)
        return {
            "rhat": np.nanmedian(rhat),
            "rhat_worst": np.nanmax(rhat),
            "ess": np.nanmin(effective_sizes(result.draws).bulk),
            "gradients": result.num_gradients.mean(),
            "ancestors": result.num_lineages,
            "step": result.step_size,
        }

    def tell(done, total):
        print(f"{model} {name}: {done}/{total}", file=sys.stderr, flush=True)

    result = calibrate(
        jax.random.key(args.seed),
        paths,
        sampler,
        targets=targets,
        quantities={"latent": latent, "pixels": pixels, "density": density},
        keep=keep,
        thin=not args.all_draws,
        progress=tell,
    )
    facts = {k: [r[k] for r in result.results] for k in result.results[0]}
    row = {"model": model, "settings": name, "targets": targets}
    for space in ("latent", "pixels", "density"):
        row[f"{space}_coverage_90"] = round(result.coverage[space], 3)
        row[f"{space}_se"] = round(result.standard_error[space], 3)
        row[f"{space}_p"] = float(f"{result.uniformity[space].least:.3g}")
    row |= {
        "rhat_median": round(float(np.median(facts["rhat"])), 3),
        "rhat_worst": round(float(np.max(facts["rhat_worst"])), 3),
        "smallest_ess_median": round(float(np.median(facts["ess"])), 1),
        "gradients_per_chain": round(float(np.mean(facts["gradients"]))),
        "ancestors_median": float(np.median(facts["ancestors"])),
        "step_median": round(float(np.median(facts["step"])), 4),
        "row_seconds": round(time.perf_counter() - begun, 1),
    }
    print(row, file=sys.stderr, flush=True)
    return row


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--models", default="linear,fashion-mnist/vae-gaussian")
    options.add_argument("--settings", default="default,diagonal-L10,score-L10")
    options.add_argument("--targets", type=int, help="by default 200 (linear) or 40")
    options.add_argument("--noise", type=float, help="of the observation (the model's, or 0.1)")
    options.add_argument("--all-draws", action="store_true", help="rank among all draws")
    options.add_argument("--rows", help="file of finished rows, to be continued")
    args = options.parse_args()
    done = common.Rows(args.rows, "model", "settings")
    rows = []
    for model in args.models.split(",")[: 1 if args.smoke else None]:
        names = args.settings.split(",")[:1] if model == "linear" else args.settings.split(",")
        for name in names:
            if (model, name) not in done:
                done.add(one(args, model, name))
            rows.append(done[model, name])
    common.report("calibration", rows=rows)


if __name__ == "__main__":
    main()
