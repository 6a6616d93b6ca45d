"""Two commands started at the same moment: is anything lost?

Each pair starts together, on folders of its own. Whatever the two are, at least one must end
with its results whole, the other with results of its own or refused in one line, and nothing
may be left half done:

- `names`: `jaxgen sample --class 7` twice, without --out;
- `out`: the same --out twice;
- `resume`: one --out, once with --resume;
- `force`: one --out twice, with --force, over a finished run;
- `train`: `jaxgen train toy2d/gan` twice into one folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
from safetensors.numpy import load_file

SAMPLE = ["sample", "--class", "7", "--chains", "2", "--num-mcmc-steps", "1", "--warmup", "1"]
SAMPLE += ["--steps", "2", "--thin", "1", "--quiet", "--checkpoint-every", "0.01"]
TRAIN = ["train", "toy2d/gan", "--steps", "200", "--out", "A", "--quiet"]
WEIGHTS = "toy2d_gan_200.safetensors"
PAIRS = {
    "names": (SAMPLE, SAMPLE),
    "out": ([*SAMPLE, "--out", "A"], [*SAMPLE, "--out", "A"]),
    "resume": ([*SAMPLE, "--out", "A"], [*SAMPLE, "--out", "A", "--resume"]),
    "force": ([*SAMPLE, "--out", "A", "--force"], [*SAMPLE, "--out", "A", "--force"]),
    "train": (TRAIN, TRAIN),
}


def start(words, place):
    """Return a command, with what it prints on a pipe."""
    command = [sys.executable, "-m", "jaxgen.cli", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=place, env=environment, **pipes)


def whole(path):
    """Whether a folder holds finished results."""
    if (path / WEIGHTS).exists():
        return bool(load_file(path / WEIGHTS))
    return (path / "summary.json").exists() and bool(load_file(path / "draws.safetensors"))


def fine(kind, place, ends):
    """Whether a pair lost nothing; prints what went wrong."""
    codes = sorted(code for code, _ in ends)
    refused = [text for code, text in ends if code == 2]
    named = all(text.startswith("error: ") and text.count("\n") == 1 for text in refused)
    if kind == "train":  # the second finds the weights, or that the first is at work
        left = [place / "A"]
    else:
        left = [place / "runs" / "sample-sneaker", place / "runs" / "sample-sneaker-2"]
        left = [path for path in [*left, place / "A"] if path.exists()]
    stray = [p.name for p in place.rglob("*") if p.name.endswith(".partial") or "jaxgen-" in p.name]
    wanted = 2 if kind == "names" else 1
    good = codes in ([0, 0], [0, 2]) and named and not stray and all(map(whole, left))
    good &= len(left) == wanted and (kind != "names" or codes == [0, 0])
    if not good:
        print(kind, ends, stray, left, file=sys.stderr)
    return good


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--pairs", type=int, default=20)
    args = options.parse_args()
    count = 2 if args.smoke else args.pairs
    kinds, ends, same = list(PAIRS), {}, 0
    with tempfile.TemporaryDirectory() as root:
        for number in range(count):
            kind = kinds[number % len(kinds)]
            place = Path(root) / str(number)
            place.mkdir()
            if kind == "force":
                start([*SAMPLE, "--out", "A"], place).communicate()
            running = [start(words, place) for words in PAIRS[kind]]
            printed = [process.communicate()[1] for process in running]
            codes = [process.returncode for process in running]
            same += fine(kind, place, list(zip(codes, printed, strict=True)))
            ends.setdefault(kind, []).append(sorted(codes))
    common.report("pairs", runs=count, identical=same, exit_codes=ends)


if __name__ == "__main__":
    main()
