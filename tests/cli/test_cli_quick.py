"""Help, the version and completion import no JAX; and the lazy roof shows what it always did."""

import json
import subprocess
import sys

import pytest

import jaxgen

_TELL = "import json, sys; from {package}.cli import main; code = main({words!r}); "
_TELL += (
    "print(json.dumps([code, sorted(n for n in sys.modules if '.' not in n)]), file=sys.stderr)"
)


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("jaxgen", ["--help"]),
        ("jaxgen", ["--version"]),
        ("jaxgen", ["sample", "--help"]),
        ("jaxgen", ["inpaint", "--help"]),
        ("jaxgen", ["completion", "bash"]),
        ("jaxgen", ["smaple"]),
        ("weights_convert", ["--help"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_what_computes_nothing_imports_nothing_heavy(package, words):
    text = _TELL.format(package=package, words=words)
    if package == "weights_convert":  # argparse ends it itself
        text = "import sys, atexit, json\natexit.register(lambda: print(json.dumps([0, sorted("
        text += "n for n in sys.modules if '.' not in n)]), file=sys.stderr))\n"
        text += f"from weights_convert.cli import main\nmain({words!r})"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == (2 if words == ["smaple"] else 0)
    assert not {"jax", "jaxlib", "flax", "numpy", "blackjax", "rich", "PIL"} & set(modules)


def test_the_roof_lists_its_names_and_knows_no_others():
    from jaxgen import public

    assert set(public.__all__) <= set(dir(jaxgen))
    for name in public.__all__:
        assert getattr(jaxgen, name) is getattr(public, name)
    with pytest.raises(AttributeError, match="no attribute 'sampel'"):
        jaxgen.sampel  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "from jaxgen import *; Gaussian.standard(2); sample",
        "from jaxgen import kernels; kernels.HMC",
        "import jaxgen; jaxgen.kernels.HMC; jaxgen.schedules.linear; jaxgen.models.dcgan.Generator",
        "import jaxgen.schedules; jaxgen.schedules.linear; jaxgen.sample",
        "import jaxgen.kernels; import jaxgen; jaxgen.sample; jaxgen.tasks.inpaint",
        "from jaxgen.models import load; load('toy2d/gan')",
        "from jaxgen.target.conditions import ClassLogSoftmax as C; C('fashion-mnist/cnn', 1)",
    ],
)
def test_names_are_found_in_a_process_that_has_imported_nothing(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
