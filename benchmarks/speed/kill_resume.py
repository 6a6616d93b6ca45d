"""Does a run that is killed at any moment go on to the same bits?

A child process samples (DCGAN, class condition) with a checkpoint after every chunk. It is
killed by SIGKILL at a random moment and started again, until it finishes; then every array
of its result, and the draws on disk, are compared with those of a run that nobody killed.
The moments are spread over the whole run; some are chosen inside the writing of a
checkpoint, which the child announces.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import numpy as np

import jaxgen

CHILD = """
import sys
import jax, numpy as np
import jaxgen
from jaxgen.sampler import checkpoint
folder, out, chains, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
checkpoint = store.RunFolder.checkpoint
def announced(self, journey):
    print("writing", flush=True)
    checkpoint(self, journey)
    print("written", flush=True)
store.RunFolder.checkpoint = announced
posterior = jaxgen.Posterior(
    jaxgen.Gaussian.standard(64), jaxgen.load("fashion-mnist/dcgan"),
    jaxgen.ClassLogSoftmax(jaxgen.load("fashion-mnist/cnn"), 3))
result = jaxgen.sample(
    jax.random.key(0), posterior, num_chains=chains, num_steps=steps, thin=1, warmup=4,
    collect=jaxgen.images, tile=4, folder=folder or None, resume=bool(folder),
    checkpoint_every=0)
arrays = {f"leaf{i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(
    (result.draws, result.position, result.log_weight, result.log_z, result.history)))}
np.savez(out, **arrays)
"""


def start(folder, out, sizes):
    """The child, with its announcements on a pipe."""
    command = [sys.executable, "-c", CHILD, str(folder), str(out), *map(str, sizes)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run_killed(folder, out, sizes, seconds, rng):
    """Kill and start again until it is done; returns how often, and how often in a write."""
    kills = inside = 0
    while True:
        child = start(folder, out, sizes)
        assert child.stdout is not None
        # The first start is always killed; later ones less and less.
        if rng.random() < 0.75**kills:
            if kills % 2 == 0:  # inside a checkpoint, some moments after it began
                wait = rng.randint(1, 8)
                for line in child.stdout:
                    wait -= line == "writing\n"
                    if wait == 0:
                        break
                time.sleep(rng.uniform(0, 0.06))
                inside += child.poll() is None
            else:
                time.sleep(rng.uniform(0.2, 1.0) * seconds)
            if child.poll() is None:
                child.kill()
                kills += 1
        child.stdout.read()
        if child.wait() == 0:
            return kills, inside


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--runs", type=int, default=20)
    args = options.parse_args()
    runs, sizes = (1, (4, 4)) if args.smoke else (args.runs, (8, 60))
    rng = random.Random(args.seed)
    same = complete = kills = inside = 0
    with tempfile.TemporaryDirectory() as root:
        begun = time.monotonic()
        whole = Path(root) / "whole.npz"
        assert start("", whole, sizes).wait() == 0
        seconds = time.monotonic() - begun
        wanted = np.load(whole)
        for number in range(runs):
            folder, out = Path(root) / f"run{number}", Path(root) / f"run{number}.npz"
            killed, in_write = run_killed(folder, out, sizes, seconds, rng)
            got = np.load(out)
            same += all(np.array_equal(got[n], wanted[n], equal_nan=True) for n in wanted.files)
            stored = jaxgen.load_run(folder).draws["position"]
            complete += stored.shape == (sizes[0], sizes[1], 64) and stored.tobytes() in {
                wanted[n].tobytes() for n in wanted.files
            }
            kills, inside = kills + killed, inside + in_write
    common.report(
        "kill_resume",
        runs=runs,
        kills=kills,
        inside_a_write=inside,
        identical=same,
        draws_complete=complete,
    )


if __name__ == "__main__":
    main()
