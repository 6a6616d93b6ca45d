"""Would longer or shorter trajectories serve the default better? The same gradients, cut otherwise.

`jaxgen.sample` at its defaults but for the kernel, HMC(L, jitter=True), and the steps: 20 / L at a
temperature, 100 / L before and 200 / L after the step size is frozen, so that a temperature and
the draws cost the same for every L. The default is L = 10. Temperatures follow from the chains, so
that gradients differ from run to run.

For each posterior of the reference set and each L: gradients a chain, rms error of log Z over its
keys and the mean stated error, how many exact draws give a posterior mean as good (`worth`), and
both as costs that can be compared: rms^2 x gradients (less is better), worth / gradients (more).
Where no L is much better than the default, nor is a length that would be learned along the path
(ChEES), if one length serves all temperatures of a posterior.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import numpy as np

import jaxgen
from jaxgen import kernels, posteriors

NAMES = (
    "linear-gaussian-20", "linear-gaussian-64", "condition-1e4-64", "every-latent-64",
    "network-five-modes-16", "sigmoid-16", "student-t-16", "banana-16",
)  # fmt: skip
LENGTHS = (5, 10, 20)


def measured(name: str, length: int, keys: range) -> dict[str, object]:
    """One row."""
    reference = posteriors.get(name)
    share = 200 // length
    options = {"num_mcmc_steps": 20 // length, "num_steps": share, "warmup": share // 2}
    error, stated, gradients, square = ([] for _ in range(4))
    for key in keys:
        result = jaxgen.sample(
            jax.random.key(key),
            reference.posterior,
            kernels.HMC(length, jitter=True),
            thin=max(1, share // 10),
            **options,
        )
        draws = np.asarray(result.draws, np.float64).reshape(-1, reference.dimension)
        error.append(result.log_z - reference.log_z)
        stated.append(result.log_z_standard_error)
        gradients.append(float(np.mean(result.num_gradients)))
        off = (draws.mean(axis=0) - reference.mean) ** 2 / reference.variance
        square.append(float(np.mean(off)))
    cost, rms = float(np.mean(gradients)), float(np.sqrt(np.mean(np.square(error))))
    worth = float(1 / np.mean(square))
    return {
        "posterior": name,
        "length": length,
        "gradients": round(cost),
        "rms": round(rms, 3),
        "stated": round(float(np.mean(stated)), 3),
        "worth": round(worth, 1),
        "rms2_gradients": round(rms**2 * cost, 1),
        "worth_per_gradient": round(worth / cost, 3),
    }


def main() -> None:
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--names", default=",".join(NAMES), help="with commas")
    options.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="of 1 to 20")
    options.add_argument("--keys", type=int, default=8)
    options.add_argument("--rows", help="a file of rows, to go on from")
    args = options.parse_args()
    names, lengths = args.names.split(","), [int(x) for x in args.lengths.split(",")]
    if any(not 1 <= x <= 20 for x in lengths):
        options.error(f"--lengths: expected numbers from 1 to 20; got {args.lengths}")
    if args.smoke:
        names, lengths, args.keys = ["linear-gaussian-2"], [10], 1
    rows = common.Rows(args.rows, "posterior", "length", "keys")
    for name in names:
        for length in lengths:
            if (name, length, args.keys) in rows:
                continue
            found = measured(name, length, range(args.seed, args.seed + args.keys))
            rows.add({**found, "keys": args.keys})
            print({**found}, file=sys.stderr, flush=True)
    common.report("trajectory_length", rows=list(rows))


if __name__ == "__main__":
    main()
