"""Write `requirements-lock.txt`: the versions that the tests ran with, for `pip install -c`.

    .venv/bin/python .ci/lock.py            # writes the file
    .venv/bin/python .ci/lock.py --check    # says whether it fits pyproject.toml

It holds the packages of `jaxgen[dev]` and all that they need, as they are installed here, and
names no index: whoever installs chooses that. torch and its own packages are not in it, since
tests do without them.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements-lock.txt"
HEAD = "# Versions that the tests ran with: pip install -e '.[dev]' -c requirements-lock.txt\n"
# Not of the environment that is described, but what it is made by.
LEFT_OUT = {"pip", "setuptools", "torch"}


def canonical(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted() -> list[Requirement]:
    """Return what `jaxgen[dev]` asks for by itself, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        texts += extra
    found = [Requirement(text) for text in texts]
    return [one for one in found if canonical(one.name) != "jaxgen"]


def installed(roots: list[Requirement]) -> dict[str, str]:
    """Return the installed packages that the roots need, name -> version."""
    versions: dict[str, str] = {}
    waiting = [(one.name, frozenset(one.extras)) for one in roots]
    done: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in done or canonical(name) in LEFT_OUT:
            continue
        done.add((name, extras))
        try:
            package = distribution(name)
        except PackageNotFoundError:  # for another system, or not needed by any test
            continue
        versions[canonical(name)] = package.version.partition("+")[0]
        for text in package.requires or ():
            one = Requirement(text)
            asked = extras or frozenset({""})
            if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in asked):
                waiting.append((one.name, frozenset(one.extras)))
    return versions


def locked() -> dict[str, str]:
    """Return the versions in the file."""
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def main() -> None:
    """Write the lock file, or check it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    roots = wanted()
    if not parser.parse_args().check:
        lines = [f"{name}=={version}\n" for name, version in sorted(installed(roots).items())]
        LOCK.write_text(HEAD + "".join(lines))
        return
    versions = locked()
    for one in roots:
        version = versions.get(canonical(one.name))
        if version is None or version not in one.specifier:
            sys.exit(f"{LOCK.name}: expected {one}; got {version}. Run python .ci/lock.py")


if __name__ == "__main__":
    main()
