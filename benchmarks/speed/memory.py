"""How much memory do more chains and more steps take?

Each row is a process of its own; its peak is the largest resident set that the system has
seen. `state` is what the chains' own arrays take (position, two gradients, two densities,
weights, keys), which must grow. Everything else should not.

  chains   AIS with MALA on the DCGAN and CNN, in tiles of the default size
  steps    draws at beta = 1 on a small posterior, nothing collected, or streamed to a folder
  tasks    inpainting of 256 x 256 x 3, 16 chains: all draws are kept, and summed up

The draws of `tasks` must grow too; their row says how many times their own size the peak grows.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax

import jaxgen
from jaxgen import kernels, schedules


def chains(count):
    """Return a few temperatures of many chains; returns bytes of the run's state."""
    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard(64),
        jaxgen.load("fashion-mnist/dcgan"),
        jaxgen.ClassLogSoftmax(jaxgen.load("fashion-mnist/cnn"), 3),
    )
    result = jaxgen.ais(
        jax.random.key(0),
        posterior,
        kernels.MALA(),
        schedules.linear(3),
        num_chains=count,
        step_size=0.01,
    )
    leaves = jax.tree.leaves(result.state._replace(key=0, chain_keys=0))
    return sum(x.nbytes for x in leaves if hasattr(x, "nbytes"))


def second_coordinate(point):
    """Return what is observed of the toy."""
    return point[1:]


def steps(count, folder):
    """Many draws of few chains; a folder gets all of them."""
    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard(2),
        jaxgen.load("toy2d/gan"),
        jaxgen.Operator(jax.numpy.zeros(1), jax.numpy.float32(0.1), forward=second_coordinate),
    )
    jaxgen.sample(
        jax.random.key(0),
        posterior,
        num_chains=16,
        num_steps=count,
        thin=1,
        collect=jaxgen.positions if folder else None,
        folder=folder,
        checkpoint_every=5.0,
    )
    return 0


def picture(point):
    """Return an image [256, 256, 3] of a point [8, 8, 3]."""
    return jax.image.resize(jax.nn.sigmoid(point), (256, 256, 3), "bilinear")


def tasks(count):
    """Complete an image with so many draws of each chain; returns bytes of the draws."""
    seen = picture(jax.random.normal(jax.random.key(1), (8, 8, 3)))
    mask = jax.numpy.ones((256, 256, 1)).at[64:192, 64:192].set(0)
    found = jaxgen.tasks.inpaint(
        jax.random.key(0),
        picture,
        seen,
        mask,
        prior=jaxgen.Gaussian.standard((8, 8, 3)),
        num_chains=16,
        num_steps=count,
    )
    return sum(x.nbytes for x in found.result.draws.values())


def child(kind, count):
    """One row, printed as JSON."""
    with tempfile.TemporaryDirectory() as root:
        if kind in ("chains", "tasks"):
            state = {"chains": chains, "tasks": tasks}[kind](count)
        else:
            state = steps(count, f"{root}/run" if kind == "streamed" else None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak": peak, "state": state}))


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--child", nargs=2, help="one row (used by the script itself)")
    options.add_argument("--only", choices=("chains", "steps", "streamed", "tasks"))
    args = options.parse_args()
    if args.child:
        child(args.child[0], int(args.child[1]))
        return
    sizes = {
        "chains": (64, 128) if args.smoke else (1_000, 10_000),
        "steps": (100, 200) if args.smoke else (1_000, 100_000),
        "streamed": (100, 200) if args.smoke else (1_000, 100_000),
        "tasks": (1, 2) if args.smoke else (1, 40),
    }
    sizes = {args.only: sizes[args.only]} if args.only else sizes
    rows = []
    for kind, counts in sizes.items():
        peaks, states = {}, {}
        for count in counts:
            command = [sys.executable, __file__, "--child", kind, str(count)]
            # Compiling takes memory of its own: in every row, not in the first of each alone.
            environment = {**os.environ, "JAXGEN_COMPILE_CACHE": "off"}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            out = done.stdout.decode()
            found = json.loads(out.splitlines()[-1])
            peaks[count], states[count] = found["peak"] - found["state"], found["state"]
            rows.append(
                {
                    "kind": kind,
                    "count": count,
                    "peak_mb": round(found["peak"] / 2**20, 1),
                    "state_mb": round(found["state"] / 2**20, 1),
                }
            )
        few, many = counts
        rows.append({"kind": kind, "ratio": round(peaks[many] / peaks[few], 3)})
        if kind == "tasks":
            more = states[many] - states[few]
            rows[-1]["times_draws"] = round(1 + (peaks[many] - peaks[few]) / more, 2)
    common.report("memory", rows=rows)


if __name__ == "__main__":
    main()
