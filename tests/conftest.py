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

# Nor is it worth while to optimise programs that run once or twice: without most of the passes of
# LLVM and XLA tests/inference takes half the CPU time. It holds in processes that tests start, too,
# whose bits some tests compare with their own. The programs of a module with
# `pytest.mark.optimised` are optimised; with JAXGEN_TEST_OPTIMISED=1 all are. Together with
# JAXGEN_TEST_EMITTERS=xla programs are compiled as they are for users.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = (
    "0" if os.environ.get("JAXGEN_TEST_OPTIMISED") == "1" else "1"
)

# Nothing that a test compiles outlives it, and no test depends on what an earlier one left.
os.environ["JAXGEN_COMPILE_CACHE"] = "off"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

_OPTIMISED = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "0"

# Linux allows a process 65,530 mappings of memory, every compiled program takes some, and XLA
# dies where it gets no more.
_MOST_MAPPINGS = 25_000


@pytest.fixture(autouse=True, scope="module")
def _compiling(request):
    """Choose how programs are compiled; forget those that were compiled otherwise, or too many."""
    little = not _OPTIMISED and request.node.get_closest_marker("optimised") is None
    maps = Path("/proc/self/maps")
    many = maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPPINGS
    if many or little != jax.config.read("jax_disable_most_optimizations"):
        jax.clear_caches()
        gc.collect()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", str(int(little)))
        jax.config.update("jax_disable_most_optimizations", little)
        yield


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="also run tests marked slow")


def pytest_configure(config):
    """A file goes to one process: what its tests share is made once, and compiled once."""
    if getattr(config.option, "dist", "no") == "load":  # what pytest-xdist takes for -n
        config.option.dist = "loadfile"


def pytest_collection_modifyitems(config, items):
    for item in items:
        module = item.getparent(pytest.Module)
        if item.get_closest_marker("optimised") and not module.get_closest_marker("optimised"):
            raise pytest.UsageError(f"{item.nodeid}: mark its whole module as optimised")
    if config.getoption("--run-slow"):
        return
    skip = pytest.mark.skip(reason="slow: give --run-slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)
