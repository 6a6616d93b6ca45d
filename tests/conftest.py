"""Every test runs with strict broadcasting, two devices, and warnings as errors."""

import gc
import os
from importlib.metadata import version
from pathlib import Path

# Most of the time here goes into compiling programs that run once, and XLA's older emitters take
# half as long over them for code as fast. Only where the flag is known: XLA dies of others.
# JAXGEN_TEST_EMITTERS=xla leaves XLA its own choice, which is what users run.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=2",
        "--xla_cpu_use_fusion_emitters=false"
        if version("jaxlib").startswith("0.10.") and os.environ.get("JAXGEN_TEST_EMITTERS") != "xla"
        else "",
    ]
).strip()

# Nothing that a test compiles outlives it, and no test depends on what an earlier one left.
os.environ["JAXGEN_COMPILE_CACHE"] = "off"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


# Large networks and updates that run once or twice: optimising them takes longer than they do.
_HARDLY_OPTIMISED = ("convert", "train")
# Linux allows a process 65,530 mappings of memory, every compiled program takes some, and XLA
# dies where it gets no more.
_MOST_MAPPINGS = 25_000


@pytest.fixture(autouse=True, scope="module")
def _compiling(request):
    """Forget all compiled programs if they have become many; choose how to compile others."""
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPPINGS:
        jax.clear_caches()
        gc.collect()
    little = request.path.parent.name in _HARDLY_OPTIMISED
    jax.config.update("jax_disable_most_optimizations", little)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="also run tests marked slow")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--run-slow"):
        return
    skip = pytest.mark.skip(reason="slow: give --run-slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)
