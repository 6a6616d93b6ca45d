"""A newcomer's path, timed: install, first picture, and a generator of one's own.

Each step is a process of its own, as a newcomer would start it, with an empty cache of
compiled programs:

- install: a virtual environment, and the package from this tree (from the package registry
  and pip's own cache; left out by --no-install, and then the steps use this Python);
- demo: the README's first command, to its two pictures;
- own_generator: docs/scripts/own_generator.py, a flax module, to posterior samples;
- own_dcgan: docs/scripts/own_dcgan.py, a PyTorch DCGAN, converted, to posterior samples
  (left out where torch is not installed).

Installing is timed, cloning is not: it depends on the network alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

from common import parser, report

ROOT = Path(__file__).resolve().parents[2]


def timed(command: list[str], folder: Path) -> float:
    """Seconds that a command takes; its output is shown where it fails."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX")}
    environment["JAXGEN_CACHE"] = str(folder / "cache")
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return round(time.perf_counter() - begun, 1)


def main() -> None:
    """Take the path and print its seconds."""
    arguments = parser(__doc__)
    arguments.add_argument("--no-install", action="store_true", help="use this Python")
    arguments.add_argument("--torch", default="torch", help="as pip is told (%(default)s)")
    arguments.add_argument("--steps", nargs="+", default=["demo", "own_generator", "own_dcgan"])
    options = arguments.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder, python = Path(name), sys.executable
        if not (options.no_install or options.smoke):
            seconds = timed([python, "-m", "venv", "env"], folder)
            python = str(folder / "env" / "bin" / "python")
            source = f"{ROOT}[convert,report]"
            seconds += timed([python, "-m", "pip", "install", "-q", "-e", source], folder)
            rows.append({"step": "install", "seconds": seconds})
            if "own_dcgan" in options.steps:  # a user of PyTorch has it: not timed
                timed([python, "-m", "pip", "install", "-q", options.torch], folder)
        commands = {
            "demo": ["-m", "jaxgen.cli", "demo", "--out", "demo"],
            "own_generator": [str(ROOT / "docs" / "scripts" / "own_generator.py")],
            "own_dcgan": [str(ROOT / "docs" / "scripts" / "own_dcgan.py")],
        }
        made = {
            "demo": "demo/inpainting.png",
            "own_generator": "own_generator.png",
            "own_dcgan": "own_dcgan.png",
        }
        if options.smoke:
            commands["demo"].append("--quick")
        for step in options.steps:
            if step == "own_dcgan" and not has(python, "torch", folder):
                rows.append({"step": step, "seconds": None, "reason": "no torch"})
                continue
            seconds = timed([python, *commands[step]], folder)
            assert (folder / made[step]).stat().st_size > 1000, made[step]
            lines = sum(bool(line.strip()) for line in _lines(commands[step][0]))
            rows.append({"step": step, "seconds": seconds, "lines": lines or None})
    report("newcomer", rows=rows)


def has(python: str, module: str, folder: Path) -> bool:
    """Whether a Python can import a module."""
    command = [python, "-c", f"import importlib.util as u; exit(not u.find_spec({module!r}))"]
    return subprocess.run(command, cwd=folder).returncode == 0


def _lines(script: str) -> list[str]:
    return Path(script).read_text().splitlines() if script.endswith(".py") else []


if __name__ == "__main__":
    main()
