"""How the process of a command ends after a signal: with its code, whatever XLA is doing."""

import os
import subprocess
import sys

import pytest

# A command that is interrupted while XLA compiles for some seconds on a thread of its own. The
# interpreter must not be taken down under it: JAX deletes the devices, which the compilation
# reads at its end. The sleep, as the last thing that an ordinary end does, lets it come to that;
# with freed memory overwritten (MALLOC_PERTURB_) the process then died of SIGSEGV each time.
COMPILING = """
import ctypes, os, signal, sys, threading
libc = ctypes.CDLL(None)
getattr(libc, "__cxa_atexit")(libc.sleep, ctypes.c_void_p(10), None)
signal.signal(signal.SIGINT, signal.default_int_handler)
import jax
import jax.numpy as jnp
from jaxgen import cli

def long(x):
    for i in range(150):
        x = jnp.sin(x + i) @ jnp.ones((3, 3))
    return x

def run(options):
    lowered = jax.jit(long).lower(jnp.ones((3, 3)))
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    print("compiling")
    lowered.compile()
    print("compiled")

cli.models._run = run
sys.argv = ["jaxgen", "models"]
cli.entry()
"""

CONVERTING = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import weights_convert.recipes_command as command

def run(args):
    print("converting")
    os.kill(os.getpid(), signal.SIGINT)
    while True:
        pass

command.run = run
sys.argv = ["weights_convert", "recipes"]
runpy.run_module("weights_convert", run_name="__main__")
"""


def ended(script):
    """The exit code, stdout and stderr of a child."""
    environment = {**os.environ, "JAXGEN_COMPILE_CACHE": "off", "JAX_PLATFORMS": "cpu"}
    environment["MALLOC_PERTURB_"] = "165"
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    words = [sys.executable, "-c", script]
    child = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240)
    return child.returncode, child.stdout, child.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc to overwrite freed memory")
@pytest.mark.parametrize(
    ("script", "printed", "said"),
    [
        (COMPILING, "compiling\n", "interrupted: no results were written\n"),
        (CONVERTING, "converting\n", "interrupted: a file appears whole or not at all\n"),
    ],
    ids=["jaxgen", "weights_convert"],
)
def test_an_interrupted_command_ends_with_130(script, printed, said):
    """Both streams are pipes here, which are flushed late: nothing printed may be lost."""
    assert ended(script) == (130, printed, said)


LEAVING = """
import sys
from jaxgen.core.leaving import leave
print("said")
leave(int(sys.argv[1]))
"""


@pytest.mark.parametrize("code", [0, 2, 130, 143])
def test_every_code_arrives_with_what_was_printed(code):
    words = [sys.executable, "-c", LEAVING, str(code)]
    child = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (child.returncode, child.stdout, child.stderr) == (code, "said\n", "")
