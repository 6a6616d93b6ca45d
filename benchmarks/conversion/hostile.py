"""Hostile files against every command of `weights_convert`: seconds, memory, traces.

    python benchmarks/conversion/hostile.py [--only TEXT] [--list] [--fork] [--verbose]

Each case writes a file of at most a few megabytes that was made to do harm (bombs, quadratic
parsers, sizes that do not fit, escapes for terminals, code in pickles) into a folder of its own,
and gives it to the command line in a process of its own. A case passes if the process ends by
itself with status 0, 1 or 2, uses at most 2 GB and 20 s of processor time, prints no traceback
and no control character, and leaves no file but the one it was asked to write. Prints the worst
cases as a table and one line of JSON. The cases are in `hostile_pytorch.py`, `hostile_caffe.py`,
`hostile_tfjs.py` and `hostile_others.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hostile_caffe import caffemodels, prototxts
from hostile_files import Case
from hostile_others import descriptions, others
from hostile_pytorch import headers, pickles, tensors, zips
from hostile_tfjs import manifests

MOST_BYTES, MOST_SECONDS = 2 << 30, 20.0


class Result(NamedTuple):
    """How a case went."""

    name: str
    status: int
    seconds: float
    megabytes: float
    faults: tuple[str, ...]
    said: str


def cases() -> Iterator[Case]:
    """All of them."""
    for group in (pickles, tensors, zips, headers, prototxts, caffemodels, manifests,
                  descriptions, others):  # fmt: skip
        yield from group()


def attack(case: Case, root: Path, fork: bool) -> Result:
    """Run one case in a process of its own."""
    name, make = case
    folder = Path(tempfile.mkdtemp(dir=root))
    argv = make(folder)
    before = {path.name for path in folder.iterdir()}
    with (root / f"{folder.name}.out").open("w+b") as output:
        start = time.perf_counter()
        pid = (_forked if fork else _spawned)(argv, folder, output.fileno())
        deadline, status, usage = start + 120, None, None
        while status is None:
            done, code, usage = os.wait4(pid, os.WNOHANG)
            if done:
                status = os.waitstatus_to_exitcode(code)
            elif time.perf_counter() > deadline:
                os.kill(pid, signal.SIGKILL)
                _, _, usage = os.wait4(pid, 0)
                status = -9
            else:
                time.sleep(0.02)
        output.seek(0)
        said = output.read(1 << 22).decode("utf-8", "replace")
    assert usage is not None
    seconds = usage.ru_utime + usage.ru_stime
    megabytes = usage.ru_maxrss / 1024
    left = {path.name for path in folder.iterdir()} - before - {"out.safetensors"}
    faults = [
        fault
        for fault, there in {
            f"status {status}": status not in (0, 1, 2),
            f"{seconds:.1f} s": seconds > MOST_SECONDS,
            f"{megabytes:.0f} MB": megabytes * 1024 * 1024 > MOST_BYTES,
            "a traceback": "Traceback (most recent" in said,
            "control characters": any(c in said for c in ("\x1b", "\x07", "\u202e", "\0")),
            f"left {sorted(left)[:3]}": bool(left),
            "wrote outside": (root / "owned").exists() or (root.parent / "evil").exists(),
        }.items()
        if there
    ]
    shutil.rmtree(folder, ignore_errors=True)
    last = said.strip().splitlines()[-1][:160] if said.strip() else ""
    return Result(name, status, seconds, megabytes, tuple(faults), last)


def _spawned(argv: list[str], folder: Path, output: int) -> int:
    """Return a process that starts as a user's does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "weights_convert", *argv], cwd=folder, stdin=subprocess.DEVNULL,
        stdout=output, stderr=subprocess.STDOUT, preexec_fn=_limit,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    process.returncode = 0  # it is waited for elsewhere
    return process.pid


def _forked(argv: list[str], folder: Path, output: int) -> int:
    """Return a copy of this process, which has imported the package: a second sooner a case."""
    from weights_convert.cli import main as command

    if pid := os.fork():
        return pid
    status = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        _limit()
        status = command(argv)
        sys.stdout.flush()
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _limit() -> None:
    """Limit the address space to 12 GB, so that the benchmark does not bring the machine down."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> int:
    """Run the cases; 1 if one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", help="run the cases whose name holds this text")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--fork", action="store_true", help="copy a process that has imported all")
    parser.add_argument("--verbose", action="store_true", help="print each case as it ends")
    args = parser.parse_args()
    # One case at a time: what a parent holds counts as its children's memory.
    chosen = (case for case in cases() if args.only in case[0])
    if args.list:
        names = [name for name, _ in chosen]
        print("\n".join(names), f"\n{len(names)} cases")
        return 0
    if args.fork:
        os.environ["JAX_PLATFORMS"] = "cpu"
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
        for name in ("cli", "pytorch_command", "caffe.command", "tfjs", "recipes.dcgan"):
            importlib.import_module(f"weights_convert.{name}")
    results = []
    with tempfile.TemporaryDirectory() as root:
        for case in chosen:
            result = attack(case, Path(root), args.fork)
            results.append(result)
            if args.verbose or result.faults:
                words = ", ".join(result.faults) or result.said
                print(f"{result.name}: {result.seconds:.1f} s, {result.megabytes:.0f} MB, {words}",
                      file=sys.stderr, flush=True)  # fmt: skip
    failed = [result for result in results if result.faults]
    ranked = sorted(results, key=lambda r: (bool(r.faults), r.seconds), reverse=True)
    print(f"{'case':<56} {'status':>6} {'s':>7} {'MB':>7}  faults, or the last line")
    for result in ranked[: max(15, len(failed) + 5)]:
        words = ", ".join(result.faults) or result.said
        print(f"{result.name[:56]:<56} {result.status:>6} {result.seconds:7.1f} "
              f"{result.megabytes:7.0f}  {words[:110]}")  # fmt: skip
    summary = {
        "cases": len(results),
        "failed": len(failed),
        "worst_seconds": round(max(r.seconds for r in results), 1),
        "worst_megabytes": round(max(r.megabytes for r in results)),
        "refused": sum(r.status == 2 for r in results),
    }
    print(json.dumps(summary))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
