"""Does a run that is killed at any moment go on to the same bits?

Child processes are killed by SIGKILL, SIGTERM or SIGINT at random moments, some of them inside
the writing of a checkpoint, some twice in a row, and started again until they finish; then all
that they leave is compared with what a run leaves that nobody killed. The children are

- `sample`: `jaxgen.sample` (DCGAN, class condition), a checkpoint after every chunk;
- `command`: `jaxgen sample ... --resume`;
- `train`: `jaxgen train toy2d/gan`.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import numpy as np
from safetensors.numpy import load_file

import jaxgen

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

CHILD = """
import sys
import jax, numpy as np
import jaxgen
from jaxgen.sampler.checkpoint import RunFolder
folder, out, chains, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
save = RunFolder.save
def announced(self, checkpoint):
    print("writing", flush=True)
    save(self, checkpoint)
    print("written", flush=True)
RunFolder.save = announced
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


def sample(folder, sizes, killed):
    """Return the child that calls `jaxgen.sample`, and the file it leaves."""
    out = folder.with_suffix(".npz")
    place = str(folder) if killed else ""
    return [sys.executable, "-c", CHILD, place, str(out), *map(str, sizes)], out


def command(folder, sizes, killed):
    """Return the command line, and the file of draws it leaves."""
    words = [
        *["sample", "--class", "3", "--quiet", "--checkpoint-every", "0.01", "--out"],
        str(folder),
    ]
    words += ["--chains", str(sizes[0]), "--steps", str(sizes[1]), "--thin", "1", "--tile", "4"]
    words += ["--resume"] if killed else []
    return [sys.executable, "-m", "jaxgen.cli", *words], folder / "draws.safetensors"


def train(folder, sizes, killed):
    """Training on the command line, and the weights it leaves."""
    steps = str(100 * sizes[1])
    words = ["train", "toy2d/gan", "--steps", steps, "--out", str(folder)]
    return [sys.executable, "-m", "jaxgen.cli", *words], folder / f"toy2d_gan_{steps}.safetensors"


def arrays_in(path):
    """All arrays of a file, by name."""
    found = load_file(path) if path.suffix == ".safetensors" else dict(np.load(path))
    return {name: found[name] for name in sorted(found)}


def start(words):
    """Return the child, with its announcements on a pipe."""
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_killed(words, finished, seconds, rng):
    """Kill and start again until it is done; returns how often, and how often in a write."""
    kills = inside = 0
    while True:
        child = start(words)
        assert child.stdout is not None
        # The first two starts are always killed; later ones less and less.
        if kills < 2 or rng.random() < 0.75**kills:
            if kills % 2 == 0 and "-c" in words:  # inside a checkpoint, some moments after it began
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
                child.send_signal(rng.choice(SIGNALS))
                kills += 1
        printed = child.stdout.read()
        if child.wait() == 0:
            return kills, inside
        if finished.exists():  # killed after its last file was written
            return kills, inside
        if child.returncode not in (130, 143, -2, -9, -15):
            raise SystemExit(f"{child.returncode}: {printed[-2000:]}")


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--kills", type=int, default=40, help="stop after so many")
    options.add_argument("--minutes", type=float, default=15, help="begin no run after these")
    options.add_argument("--only", choices=("sample", "command", "train"))
    args = options.parse_args()
    makers = {"sample": sample, "command": command, "train": train}
    names = [args.only] if args.only else list(makers)
    sizes = (4, 20) if args.smoke else (8, 60)
    began = time.monotonic()
    # A script in the background ignores SIGINT, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng = random.Random(args.seed)
    same = complete = kills = inside = runs = 0
    each = {name: [0, 0] for name in names}
    with tempfile.TemporaryDirectory() as root:
        wanted, seconds = {}, {}
        for name in names:
            for trial in range(2):  # the second finds its programs compiled, as the killed will
                words, out = makers[name](Path(root) / f"whole-{name}-{trial}", sizes, False)
                begun = time.monotonic()
                child = start(words)
                printed = child.communicate()[0]
                assert child.returncode == 0, printed[-2000:]
                wanted[name], seconds[name] = arrays_in(out), time.monotonic() - begun
        minutes = 0 if args.smoke else args.minutes
        while runs < len(names) or (kills < args.kills and time.monotonic() - began < 60 * minutes):
            name = names[runs % len(names)]
            folder = Path(root) / f"run[{runs}]"
            runs += 1
            words, out = makers[name](folder, sizes, True)
            killed, in_write = run_killed(words, out, seconds[name], rng)
            got = arrays_in(out)
            right = got.keys() == wanted[name].keys() and all(
                np.array_equal(got[n], wanted[name][n], equal_nan=True)
                for n in got
                if got[n].dtype.kind == "f"
            )
            if name == "sample":
                stored = jaxgen.load_run(folder).draws["position"]
                whole = {x.tobytes() for x in wanted[name].values()}
                right &= stored.shape == (*sizes, 64) and stored.tobytes() in whole
                complete += right
            same += right
            each[name][0] += right
            each[name][1] += killed
            kills, inside = kills + killed, inside + in_write
    common.report(
        "kill_resume",
        runs=runs,
        kills=kills,
        inside_a_write=inside,
        identical=same,
        draws_complete=complete,
        same_and_kills={name: tuple(pair) for name, pair in each.items()},
    )


if __name__ == "__main__":
    main()
