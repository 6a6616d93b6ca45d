"""`jaxgen doctor`: whether this installation works, with an answer that is known exactly."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from jaxgen.cli.options import Commands, Parser, add_talk

__all__ = ["Check", "add", "examine"]

_NEEDED = (
    *("jax", "jaxlib", "flax", "optax", "blackjax", "orbax-checkpoint"),
    *("numpy", "safetensors", "pillow", "rich"),
)
_OPTIONAL = ("arviz", "matplotlib", "scipy", "protobuf")
# How far log Z may be from the exact one, in standard errors, and in nats besides.
_ERRORS, _NATS = 5.0, 0.05


class Check(NamedTuple):
    """One thing looked at: `status` is "ok", "note" or "failed"."""

    name: str
    status: str
    detail: str
    data: dict[str, Any]


def add(commands: Commands, name: str) -> None:
    """Add the command to a parser."""
    parser: Parser = commands.add_parser(
        name,
        help="check this installation, in a few seconds",
        description="Look at versions, devices, caches and the shipped weights, and sample a "
        "posterior whose log Z is known exactly. Exits with 1 if anything fails.",
        epilog="Example: jaxgen doctor --json",
    )
    add_talk(parser, json="print JSON", quiet="print only what fails")
    parser.set_defaults(run=_run)


def examine() -> list[Check]:
    """Every check, in order; none raises."""
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("versions", versions),
        ("devices", devices),
        ("caches", caches),
        ("weights", weights),
        ("self-test", self_test),
    ]
    return [_guarded(name, check) for name, check in checks]


def versions() -> Check:
    """Python and the packages; those that only some commands need may be missing."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import jaxgen

    found: dict[str, Any] = {"python": platform.python_version(), "jaxgen": jaxgen.__version__}
    for name in (*_NEEDED, *_OPTIONAL):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    missing = [name for name in _NEEDED if found[name] is None]
    absent = [name for name in _OPTIONAL if found[name] is None]
    detail = ", ".join(f"{name} {number}" for name, number in found.items() if number)
    if absent:
        detail += f"; not installed, and not always needed: {', '.join(absent)}"
    if missing:
        detail = f"missing: {', '.join(missing)}; install jaxgen again with pip"
    return Check("versions", "failed" if missing else "ok", detail, found)


def devices() -> Check:
    """Check what JAX computes on."""
    import jax

    found = jax.devices()
    kinds = sorted({device.device_kind for device in found})
    data = {"backend": jax.default_backend(), "count": len(found), "kinds": kinds}
    noun = "device" if len(found) == 1 else "devices"
    detail = f"{len(found)} {data['backend']} {noun}: {', '.join(kinds)}"
    return Check("devices", "ok", detail, data)


def caches() -> Check:
    """Check where fetched networks and compiled programs are kept."""
    from jaxgen.core.cache import cache_folder, keep_compiled

    folder, compiled = cache_folder(), keep_compiled()
    size = _size(compiled) if compiled is not None else 0
    data = {"folder": str(folder), "compiled": compiled and str(compiled), "bytes": size}
    if compiled is None:
        hint = "set JAXGEN_CACHE to a folder that can be written"
        detail = f"compiled programs are not kept (switched off, or no place in {folder}; {hint})"
        return Check("caches", "note", detail, data)
    return Check("caches", "ok", f"{compiled}, {size / 1e6:.1f} MB of compiled programs", data)


def weights() -> Check:
    """Check the digest of every shipped file, and that none is missing."""
    from importlib.resources import as_file, files

    from jaxgen.core.errors import InputError
    from jaxgen.models.registry import available
    from jaxgen.models.weights import load_weights

    digests: dict[str, str] = {}
    wrong = []
    with as_file(files("jaxgen") / "shipped") as folder:
        for path in sorted(folder.glob("*.safetensors")):
            if path.stem.endswith("_examples"):  # pictures, not weights
                continue
            try:
                _, metadata = load_weights(path)
            except InputError as error:
                wrong.append(str(error))
                continue
            digests[str(metadata.get("name", path.stem))] = metadata["sha256"]
    lost = _absent(name for name in available() if name not in digests)
    data = {"sha256": digests, "missing": lost, "damaged": wrong}
    if wrong or lost:
        said = [*wrong, *(f"{name} is not installed" for name in lost)]
        return Check("weights", "failed", "; ".join(said) + "; install jaxgen again", data)
    return Check("weights", "ok", f"{len(digests)} files, every SHA-256 as written", data)


def self_test() -> Check:
    """Sample y = A z + b + noise, z ~ N(0, I), and compare log Z with the exact one."""
    import time

    import jax
    import numpy as np

    import jaxgen

    begun = time.monotonic()
    posterior, exact, mean = _linear_gaussian()
    result = jaxgen.sample(
        jax.random.key(0),
        posterior,
        num_chains=256,
        num_steps=20,
        thin=2,
        num_mcmc_steps=2,
        warmup=10,
    )
    draws = np.asarray(result.draws, np.float64)
    deviation = draws.reshape(-1, draws.shape[-1]).std(axis=0)
    # By chain, since draws of one chain depend on each other.
    error = draws.mean(axis=1).std(axis=0, ddof=1) / np.sqrt(len(draws)) + 1e-3 * deviation
    off = float(np.max(np.abs(draws.mean(axis=(0, 1)) - mean) / error))
    apart = abs(result.log_z - exact)
    allowed = _ERRORS * result.log_z_standard_error + _NATS
    good = bool(apart <= allowed and off <= _ERRORS and np.isfinite(draws).all())
    data = {
        "log_z": result.log_z,
        "log_z_standard_error": result.log_z_standard_error,
        "exact_log_z": exact,
        "mean_off_by_standard_errors": off,
        "seconds": round(time.monotonic() - begun, 2),
    }
    detail = (
        f"log Z {result.log_z:.3f} \u00b1 {result.log_z_standard_error:.3f}, exact {exact:.3f}; "
        f"posterior mean within {off:.1f} standard errors; {data['seconds']:.1f} s"
    )
    return Check("self-test", "ok" if good else "failed", detail, data)


def _linear_gaussian() -> tuple[Any, float, Any]:
    """Return a posterior, its log Z = log N(y; b, A A^T + s^2 I), and its mean."""
    import numpy as np

    from jaxgen.posteriors.linear_gaussian import LinearGaussian

    matrix = np.eye(4) + 0.4 * np.eye(4, k=1)
    model = LinearGaussian(matrix, np.linspace(-0.3, 0.3, 4), [0.9, -0.4, 0.2, -1.1], 0.5)
    return model.posterior, model.log_z, model.mean


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:  # whatever is broken here is what was asked for
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        return Check(name, "failed", reason, {})


def _absent(names: Iterable[str]) -> list[str]:
    """Those of some shipped names that have no file; the others are second names, or damaged."""
    from jaxgen.core.errors import InputError
    from jaxgen.models.registry import describe

    lost = []
    for name in names:
        try:
            describe(name)
        except InputError as error:
            if "not installed" in str(error):
                lost.append(name)
    return lost


def _size(folder: Any) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # another process has just removed it
            continue
    return total


def _run(options: Namespace) -> int:
    import json

    from jaxgen.report.output_folder import plain

    checks = examine()
    if options.json:
        said = {check.name: check._asdict() for check in checks}
        good = all(check.status != "failed" for check in checks)
        print(json.dumps(plain({"ok": good, "checks": said}), indent=2))
        return 0 if good else 1
    failed = [check.name for check in checks if check.status == "failed"]
    for check in checks:
        if not options.quiet or check.status == "failed":
            print(f"{check.status:>6}  {check.name}: {check.detail}")
    if failed or not options.quiet:
        print("all is well" if not failed else f"failed: {', '.join(failed)}")
    return 1 if failed else 0
