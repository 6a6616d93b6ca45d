"""What becomes of a run folder that was damaged, or of a run whose functions have changed?

`damage`: copies of a run's folder, some finished and some half done, with a bit flipped, an end
cut off, bytes put in place of others, or a file missing; each is resumed. It must end with the
bits of a run that nothing happened to, or be refused. `functions`: a run is resumed with another
function in its place, 12 kinds of change; each must be refused by name.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import types
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen.core.pytree import as_data
from jaxgen.sampler.checkpoint import RunFolder
from jaxgen.sampler.state import Phase
from jaxgen.target.path import AnnealedPath, LogProb

KINDS = ("bit", "bit", "bit", "cut", "other bytes", "missing", "two bits")

# Two texts of a module each, whose `f` differ, and the word under which the change is told.
HEAD = "import functools\nimport jax\nimport jax.numpy as jnp\n"
CLASS = "class C:\n  s = {1}\n  def __init__(self, a): self.a = a\n"
CLASS += "  def __call__(self, x): return -jnp.sum((x - self.a * self.s)**2){2}\n"
CHANGES = {
    "lambda": ("f = lambda x: -jnp.sum(x**2)", "f = lambda x: -jnp.sum(x**2) / 2", "function"),
    "body of a def": (
        "def f(x): return -jnp.sum(x**2)",
        "def f(x): return -jnp.sum(x**4)",
        "function",
    ),
    "closure": (
        "f = (lambda y: lambda x: -jnp.sum((x - y)**2))(jnp.zeros(5))",
        "f = (lambda y: lambda x: -jnp.sum((x - y)**2))(jnp.full(5, 2.0))",
        "closure.y",
    ),
    "default": (
        "def f(x, y=0.0): return -jnp.sum((x - y)**2)",
        "def f(x, y=1.0): return -jnp.sum((x - y)**2)",
        "default.y",
    ),
    "keyword default": (
        "def f(x, *, y=0.0): return -jnp.sum((x - y)**2)",
        "def f(x, *, y=1.0): return -jnp.sum((x - y)**2)",
        "default.y",
    ),
    "global": (
        "S = 1.0\ndef f(x): return -jnp.sum((x - S)**2)",
        "S = 2.0\ndef f(x): return -jnp.sum((x - S)**2)",
        "global.S",
    ),
    "array among globals": (
        "S = jnp.arange(5.0)\ndef f(x): return -jnp.sum((x - S)**2)",
        "S = jnp.arange(5.0) * 2\ndef f(x): return -jnp.sum((x - S)**2)",
        "global.S",
    ),
    "function it calls": (
        "def g(x): return x**2\ndef f(x): return -jnp.sum(g(x))",
        "def g(x): return x**4\ndef f(x): return -jnp.sum(g(x))",
        "global.g",
    ),
    "bound method": (
        CLASS.replace("{1}", "1").replace("{2}", "") + "f = C(0.0).__call__",
        CLASS.replace("{1}", "1").replace("{2}", "") + "f = C(1.0).__call__",
        "self.a",
    ),
    "attribute of an object": (
        CLASS.replace("{1}", "1").replace("{2}", "") + "f = C(0.0)",
        CLASS.replace("{1}", "1").replace("{2}", "") + "f = C(1.0)",
        "function.a",
    ),
    "method of a class": (
        CLASS.replace("{1}", "1").replace("{2}", "") + "f = C(1.0)",
        CLASS.replace("{1}", "1").replace("{2}", "/ 2") + "f = C(1.0)",
        "function",
    ),
    "partial": (
        "f = functools.partial(lambda y, x: -jnp.sum((x - y)**2), 0.0)",
        "f = functools.partial(lambda y, x: -jnp.sum((x - y)**2), 1.0)",
        "args.0",
    ),
}


def tilt(z):
    """Return a skewed log likelihood."""
    return jnp.sum(1.5 * z - jnp.exp(z))


def run(folder, function=tilt, **more):
    """Return a small run of a few checkpoints."""
    start = jaxgen.Gaussian.standard(5)
    path = AnnealedPath(LogProb(start), as_data(function), start)
    options = {"num_chains": 8, "num_steps": 12, "thin": 1, "warmup": 3, "checkpoint_every": 0}
    options |= {"betas": jaxgen.schedules.linear(4), "step_size": 0.2}
    return jaxgen.sample(
        jax.random.key(0), path, jaxgen.kernels.MALA(), folder=folder, **options, **more
    )


def bits(result):
    """All that a run gives, as bytes."""
    parts = (result.draws, result.position, result.log_weight, result.log_z, result.history)
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(parts)]


def half(folder):
    """Start a run that dies among its draws."""
    save = RunFolder.save

    def dying(self, checkpoint):
        save(self, checkpoint)
        if checkpoint.phase == Phase.DRAW and checkpoint.done >= 4:
            raise KeyboardInterrupt

    RunFolder.save = dying
    try:
        run(folder)
    except KeyboardInterrupt:
        pass
    finally:
        RunFolder.save = save


def spoil(path, kind, rng):
    """Damage a file."""
    data = bytearray(path.read_bytes())
    if kind == "missing":
        path.unlink()
        return
    if kind == "cut":
        data = data[: rng.randrange(len(data))]
    elif kind == "other bytes":
        place = rng.randrange(len(data))
        data[place : place + 16] = rng.randbytes(16)
    else:
        for _ in range(2 if kind == "two bits" else 1):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


def damaged(root, count, rng):
    """How many damaged folders end in the same bits, are refused, or end in others."""
    ends = {"same": 0, "same_after_a_fall_back": 0, "refused": 0, "wrong": 0, "other_errors": 0}
    run(root / "whole")
    half(root / "half")
    wanted = bits(run(None))
    for number in range(count):
        source, folder = root / ("whole", "half")[number % 2], root / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "lock")
        spoil(rng.choice(files), rng.choice(KINDS), rng)
        try:
            result = run(folder, resume=True)
        except jaxgen.InputError:
            ends["refused"] += 1
        except Exception as error:
            print(repr(error), file=sys.stderr)
            ends["other_errors"] += 1
        else:
            fell = any("damaged" in note for note in result.notes)
            right = "same_after_a_fall_back" if fell else "same"
            ends[right if bits(result) == wanted else "wrong"] += 1
    return ends


def made(text):
    """Return the function of a module of that text."""
    module = types.ModuleType("mine")
    exec(compile(HEAD + text, "mine.py", "exec"), vars(module))
    return module.f


def changed(root, kinds):
    """Return the kinds of changes that were refused by name."""
    refused = []
    for kind in kinds:
        old, new, word = CHANGES[kind]
        folder = root / kind
        run(folder, made(old))
        try:
            run(folder, made(new), resume=True)
        except jaxgen.InputError as error:
            if word in str(error) and "resume: expected the settings" in str(error):
                refused.append(kind)
    return refused


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--folders", type=int, default=500)
    args = options.parse_args()
    count, kinds = (20, list(CHANGES)[:2]) if args.smoke else (args.folders, list(CHANGES))
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as root:
        ends = damaged(Path(root), count, random.Random(args.seed))
        refused = changed(Path(root), kinds)
    wrong = ends["wrong"] + ends["other_errors"]
    common.report(
        "damage",
        runs=count + len(kinds),
        identical=count - wrong + len(refused),
        folders=count,
        **ends,
        changes=len(kinds),
        changes_refused_by_name=len(refused),
    )


if __name__ == "__main__":
    main()
