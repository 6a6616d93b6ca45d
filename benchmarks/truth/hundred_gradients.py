"""What can be had from the toy generator at no more than 100 gradients a chain?

`toy-15000` of `jaxgen.posteriors` (a generator of two latents, trained by a GAN, one observed
coordinate): a pool of 100 prior draws for each chain, no pilot, one move at a temperature, one
draw of each chain. For each number of chains: the root mean square error of log Z and the mean
stated one, how many independent exact draws would give a posterior mean as good (`worth`), and
in what share of the runs every mode above 1% has a draw.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import numpy as np

import jaxgen
from jaxgen import posteriors

NAME = "toy-15000"
LARGE = 0.01
OPTIONS = {"pilot": False, "num_mcmc_steps": 1, "num_steps": 3, "thin": 3, "warmup": 1, "pool": 100}


def main() -> None:
    """Print one JSON line for each number of chains."""
    options = common.parser(__doc__)
    options.add_argument("--chains", default="64,512", help="with commas")
    options.add_argument("--keys", type=int, default=40)
    args = options.parse_args()
    reference = posteriors.get(NAME)
    large = reference.modes.masses >= LARGE
    keys = range(2 if args.smoke else args.keys)
    for chains in (16,) if args.smoke else map(int, args.chains.split(",")):
        error, stated, gradients, square, present = ([] for _ in range(5))
        for key in keys:
            result = jaxgen.sample(
                jax.random.key(args.seed + key), reference.posterior, num_chains=chains, **OPTIONS
            )
            draws = np.asarray(result.draws, np.float64).reshape(-1, reference.dimension)
            off = draws.mean(axis=0) - reference.mean
            found = np.bincount(reference.modes(draws), minlength=len(large))
            error.append(result.log_z - reference.log_z)
            stated.append(result.log_z_standard_error)
            gradients.append(float(np.mean(result.num_gradients)))
            square.append(float(np.mean(off**2 / reference.variance)))
            present.append(bool(np.all(found[large] > 0)))
        common.report(
            "hundred_gradients",
            posterior=NAME,
            chains=chains,
            keys=len(error),
            gradients=float(np.mean(gradients)),
            rms=float(np.sqrt(np.mean(np.square(error)))),
            stated=float(np.mean(stated)),
            worth=float(1 / np.mean(square)),
            all_large_modes=float(np.mean(present)),
        )


if __name__ == "__main__":
    main()
