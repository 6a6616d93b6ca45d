"""A process that ends without JAX's clean-up, because of an exception that nobody caught."""

import subprocess
import sys

import pytest

SCRIPT = """
import atexit
atexit.register(print, "registered before JAX")
import jax
atexit.register(print, "registered after JAX")
from jaxgen.core.leaving import leave_if_uncaught

def cleaning():
    print("JAX cleans up")

# What JAX registers, which would wait for the dead process and abort.
import jax._src.api as api
atexit.unregister(api.clean_up)
atexit.register(cleaning)
api.clean_up = cleaning

error = RuntimeError("the other one is gone")
leave_if_uncaught(error)
WHAT
"""


@pytest.mark.parametrize(
    ("what", "cleaned"),
    [
        ("raise error", False),
        ("raise KeyError('mine') from error", False),
        ("raise KeyError('another one')", True),
        ("pass", True),
    ],
)
def test_only_the_uncaught_exception_skips_jax(what, cleaned):
    script = SCRIPT.replace("WHAT", what)
    words = [sys.executable, "-c", script]
    child = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert child.returncode == (what != "pass")
    printed = ["registered after JAX", "registered before JAX"]
    assert child.stdout.splitlines() == ["JAX cleans up"] * cleaned + printed
    last = child.stderr.strip().splitlines()[-1:]
    assert bool(last) == (what != "pass")
    assert "Error" in (last or ["Error"])[0]
