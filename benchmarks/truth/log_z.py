"""Is log Z right, and is its standard error?

A linear-Gaussian model whose log Z is known: z ~ N(0, I), y ~ N(A z + b, noise^2 I), in
d = 2 and 20, annealed by AIS with HMC(5) through T = 4, 10 and 200 linear temperatures and
no resampling. Coarse schedules are the sharp test: with fine ones even a gradient left
over from the temperature before gives the right answer. 200 repetitions each: the first
is shown against 4 standard errors, all of them against the 95% interval log Z +- 1.96 se.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import numpy as np

import jaxgen
from jaxgen import kernels, schedules
from jaxgen.posteriors.linear_gaussian import LinearGaussian


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--chains", type=int, default=2048)
    args = options.parse_args()
    repetitions = 10 if args.smoke else 200
    rows = []
    for size in (2, 20):
        model = LinearGaussian.random(size, 1.0, args.seed)
        for temperatures in (4, 10, 200):
            estimates = []
            for repetition in range(repetitions):
                result = jaxgen.ais(
                    jax.random.fold_in(jax.random.key(args.seed), repetition),
                    model.posterior,
                    kernels.HMC(5),
                    schedules.linear(temperatures),
                    num_chains=args.chains,
                    step_size=0.3,
                )
                estimates.append((result.log_z, result.log_z_standard_error, result.ess))
            log_z, error, ess = np.array(estimates).T
            score = (log_z - model.log_z) / error
            rows.append(
                {
                    "d": size,
                    "T": temperatures,
                    "exact": round(model.log_z, 4),
                    "log_z": round(log_z[0], 4),
                    "standard_error": round(error[0], 4),
                    "errors_off": round(abs(score[0]), 2),
                    "coverage_95": round(float(np.mean(np.abs(score) < 1.96)), 3),
                    "mean_ess": round(float(ess.mean()), 1),
                }
            )
    common.report(
        "log_z",
        chains=args.chains,
        repetitions=repetitions,
        within_4_errors=all(row["errors_off"] < 4 for row in rows),
        coverage_in_90_to_99=all(0.9 <= row["coverage_95"] <= 0.99 for row in rows),
        rows=rows,
    )


if __name__ == "__main__":
    main()
