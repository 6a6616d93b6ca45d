"""What a run is made of: whatever may change a function's values changes its description."""

import functools
import os
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.core.fingerprint import describe, difference

ROOT = Path(__file__).parents[2]


def changes(old, new):
    """The names that differ, of two texts of a module that both define `f`."""
    return difference(describe(made(old), "f"), describe(made(new), "f"))


def made(text):
    module = types.ModuleType("mine")
    exec(compile(textwrap.dedent(text), "mine.py", "exec"), vars(module))
    return module.f


# What is changed, and the name under which the difference is told.
CHANGED = {
    "body": ("f = lambda x: x + 1", "f = lambda x: x + 2", "f was"),
    "operator": ("def f(x): return x - 3", "def f(x): return x * 3", "f was"),
    "nested body": (
        "def f(x):\n  def inner(y): return y + 1\n  return inner(x)",
        "def f(x):\n  def inner(y): return y - 1\n  return inner(x)",
        "f was",
    ),
    "kind of number": ("f = lambda x: x + 1", "f = lambda x: x + 1.0", "f was"),
    "closure": (
        "mk = lambda y: lambda x: x - y\nf = mk(1.0)",
        "mk = lambda y: lambda x: x - y\nf = mk(2.0)",
        "f.closure.y was 1.0, is 2.0",
    ),
    "closure of arrays": (
        "import numpy as np\nmk = lambda y: lambda x: x - y\nf = mk(np.zeros(50))",
        "import numpy as np\nmk = lambda y: lambda x: x - y\nf = mk(np.eye(50)[0])",
        "f.closure.y was float64[50] sha256",
    ),
    "closure in a closure": (
        "mk = lambda g: lambda x: g(x)\nf = mk((lambda y: lambda x: x - y)(1.0))",
        "mk = lambda g: lambda x: g(x)\nf = mk((lambda y: lambda x: x - y)(2.0))",
        "f.closure.g.closure.y was 1.0, is 2.0",
    ),
    "default": ("def f(x, a=1): return x + a", "def f(x, a=2): return x + a", "f.default.a was 1"),
    "keyword default": (
        "def f(x, *, a=1): return x + a",
        "def f(x, *, a=2): return x + a",
        "f.default.a was 1",
    ),
    "bound object": (
        "class C:\n  def __init__(self, s): self.s = s\n  def f(self, x): return x * self.s\n"
        "f = C(1).f",
        "class C:\n  def __init__(self, s): self.s = s\n  def f(self, x): return x * self.s\n"
        "f = C(2).f",
        "f.self.s was 1, is 2",
    ),
    "attribute of an object": (
        "class C:\n  def __call__(self, x): return x * self.s\nf = C()\nf.s = 1",
        "class C:\n  def __call__(self, x): return x * self.s\nf = C()\nf.s = 2",
        "f.s was 1, is 2",
    ),
    "slot": (
        "class C:\n  __slots__ = ('s',)\n  def __call__(self, x): return x * self.s\n"
        "f = C()\nf.s = 1",
        "class C:\n  __slots__ = ('s',)\n  def __call__(self, x): return x * self.s\n"
        "f = C()\nf.s = 2",
        "f.s was 1, is 2",
    ),
    "method of a class": (
        "class C:\n  def __call__(self, x): return x * 2\nf = C()",
        "class C:\n  def __call__(self, x): return x * 3\nf = C()",
        "f was mine.C sha256",
    ),
    "method of a base class": (
        "class B:\n  def g(self, x): return x\nclass C(B):\n"
        "  def __call__(self, x): return self.g(x)\nf = C()",
        "class B:\n  def g(self, x): return -x\nclass C(B):\n"
        "  def __call__(self, x): return self.g(x)\nf = C()",
        "f was mine.C sha256",
    ),
    "method of a dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n  s: float = 1.0\n"
        "  def __call__(self, x): return x * self.s\nf = C()",
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n  s: float = 1.0\n"
        "  def __call__(self, x): return x / self.s\nf = C()",
        "f was mine.C sha256",
    ),
    "constant of a class": (
        "class C:\n  s = 1\n  def __call__(self, x): return x * self.s\nf = C()",
        "class C:\n  s = 2\n  def __call__(self, x): return x * self.s\nf = C()",
        "f was mine.C sha256",
    ),
    "partial": (
        "import functools\ndef g(x, a): return x * a\nf = functools.partial(g, a=1)",
        "import functools\ndef g(x, a): return x * a\nf = functools.partial(g, a=2)",
        "f.keywords.a was 1, is 2",
    ),
    "global": (
        "S = 1\ndef f(x): return x * S",
        "S = 2\ndef f(x): return x * S",
        "f.global.S was 1",
    ),
    "global in a nested function": (
        "S = 1\ndef f(x): return [y * S for y in x] + (lambda: S)()",
        "S = 2\ndef f(x): return [y * S for y in x] + (lambda: S)()",
        "f.global.S was 1",
    ),
    "array among globals": (
        "import numpy as np\nS = np.arange(100)\ndef f(x): return x * S",
        "import numpy as np\nS = np.arange(100)[::-1]\ndef f(x): return x * S",
        "f.global.S was int64[100] sha256",
    ),
    "global of a global": (
        "S = 1\ndef g(x): return x * S\ndef h(x): return g(x)\ndef f(x): return h(x)",
        "S = 2\ndef g(x): return x * S\ndef h(x): return g(x)\ndef f(x): return h(x)",
        "f.global.h was mine.h sha256",
    ),
    "recursion": (
        "def f(x): return g(x)\ndef g(x): return f(x) if x else 1",
        "def f(x): return g(x)\ndef g(x): return f(x) if x else 2",
        "f.global.g was mine.g sha256",
    ),
    "decorated": (
        "import jax\n@jax.jit\ndef f(x): return x + 1",
        "import jax\n@jax.jit\ndef f(x): return x + 2",
        "f was PjitFunction of mine.f sha256",
    ),
    "custom derivative": (
        "import jax\n@jax.custom_jvp\ndef f(x): return x\nf.defjvp(lambda p, t: (p[0], t[0]))",
        "import jax\n@jax.custom_jvp\ndef f(x): return x\nf.defjvp(lambda p, t: (p[0], -t[0]))",
        "f",
    ),
    "vmap and grad": (
        "import jax\nS = 1\nf = jax.vmap(jax.grad(lambda x: x * S))",
        "import jax\nS = 2\nf = jax.vmap(jax.grad(lambda x: x * S))",
        "global.S was 1, is 2",
    ),
    "attribute of a function": (
        "def f(x): return x * f.s\nf.s = 1",
        "def f(x): return x * f.s\nf.s = 2",
        "f.attribute.s was 1",
    ),
    "library function": (
        "import jax.numpy as jnp\ndef f(x): return jnp.sin(x)",
        "import jax.numpy as jnp\ndef f(x): return jnp.cos(x)",
        "f was",
    ),
    "library function in a closure": (
        "import jax\nf = (lambda g: lambda x: g(x))(jax.nn.relu)",
        "import jax\nf = (lambda g: lambda x: g(x))(jax.nn.gelu)",
        "f.closure.g was",
    ),
    "set": ("S = {'a', 'b', 'c'}\ndef f(x): return x in S",
            "S = {'a', 'b', 'd'}\ndef f(x): return x in S", "f.global.S was"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGED)
def test_a_changed_function_is_told_by_name(kind):
    old, new, words = CHANGED[kind]
    lines = changes(old, new)
    assert lines
    assert any(words in line for line in lines), lines
    assert changes(old, old) == changes(new, new) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def f(x):\n  return x + 1", "# a comment\n\ndef f(x):\n\n  return x + 1"),
        ("def f(x): return x + 1", "def f(x):\n  'It adds.'\n  return x + 1"),
        ("def f(x):\n  'One.'\n  return x + 1", "def f(x):\n  'Another.'\n  return x + 1"),
        ("def f(x):\n  y = x\n  return y", "def f(x):\n  result = x\n  return result"),
        ("S = 1\ndef f(x): return x", "S = 2\ndef f(x): return x"),
        ("shape = 1\ndef f(x): return x.shape", "shape = 2\ndef f(x): return x.shape"),
    ],
)
def test_what_changes_nothing_is_no_difference(old, new):
    assert changes(old, new) == []


def test_modules_of_the_user_count_by_what_is_read_of_them(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for number in (1, 2):
        (tmp_path / f"settings{number}.py").write_text(f"SIGMA = {number}\nOTHER = {number}\n")
    old = "import settings1 as s\ndef f(x): return x * s.SIGMA"
    assert "f.global.s.SIGMA was 1, is 2" in changes(old, old.replace("s1", "s2"))
    inside = "def f(x):\n  import settings1 as s\n  return x"
    (tmp_path / "settings1.py").write_text("SIGMA = 3\n")
    was = describe(made(inside), "f")
    del sys.modules["settings1"]
    (tmp_path / "settings1.py").write_text("SIGMA = 4\n")
    made("import settings1\nf = None")
    lines = difference(was, describe(made(inside), "f"))
    assert [line.split(" was ")[0] for line in lines] == ["f.import.settings1"]


def test_a_module_that_moved_is_no_difference():
    old = {"collect": "jaxgen.sample.images sha256 e27c2ac5d643"}
    assert difference(old, {"collect": "jaxgen.inference.sample.images sha256 e27c2ac5d643"}) == []
    lines = difference(old, {"collect": "jaxgen.inference.sample.images sha256 000000000000"})
    assert lines == [
        "collect was jaxgen.images sha256 e27c2ac5d643, is jaxgen.images sha256 000000000000"
    ]
    other = {"collect": "jaxgen.inference.sample.positions sha256 e27c2ac5d643"}
    assert len(difference(old, other)) == 1


def test_the_users_own_modules_count():
    old, new = {"f": "mine.a.f sha256 1"}, {"f": "mine.b.f sha256 1"}
    assert difference(old, new) == ["f was mine.a.f sha256 1, is mine.b.f sha256 1"]


SCRIPT = """
import json, functools, logging, random, threading, jax, jax.numpy as jnp, numpy as np, jaxgen
from jaxgen.core.fingerprint import describe
from tests.toys import LinearGaussian
LOCK, LOG, RNG, NAMES = threading.Lock(), logging.getLogger("x"), random.Random(), {"a", "b", "c"}
class Model:
    def __init__(self):
        self.log, self.weights, self.act = LOG, jnp.arange(9.0), jax.nn.relu
    def __call__(self, x):
        with LOCK:
            return self.act(x @ self.weights) + len(NAMES) * RNG.random()
def f(x, model=Model()):
    return jax.vmap(model)(x)
parts = {"f": f, "jit": jax.jit(f), "part": functools.partial(f, model=Model()), "set": NAMES,
         "target": LinearGaussian(3).posterior, "net": jaxgen.load("fashion-mnist/dcgan"),
         "generator": np.random.default_rng(), "images": jaxgen.images}
print(json.dumps(describe(parts)))
"""


def test_every_process_says_the_same():
    printed = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", SCRIPT]
        printed.add(
            subprocess.run(command, env=environment, capture_output=True, check=True).stdout
        )
    assert len(printed) == 1
    assert b" at 0x" not in printed.pop()


def test_running_a_function_does_not_change_it():
    def f(x, scale=jnp.arange(3.0)):  # noqa: B008
        return jnp.sum(x * scale)

    before = describe({"f": f, "jit": jax.jit(f), "grad": jax.grad(f)})
    for _ in range(50):  # Python rewrites the instructions of what runs often
        f(np.ones(3, np.float32))
    jax.jit(f)(jnp.ones(3))
    assert describe({"f": f, "jit": jax.jit(f), "grad": jax.grad(f)}) == before


def test_a_large_array_is_read_once_however_often_it_occurs():
    weights = np.random.default_rng(0).normal(size=(4 << 20,)).astype(np.float32)
    begun = time.perf_counter()
    once = describe({"f": functools.partial(max, weights)})
    single = time.perf_counter() - begun
    begun = time.perf_counter()
    many = describe({str(i): functools.partial(max, weights) for i in range(50)})
    assert time.perf_counter() - begun < 10 * single + 0.2
    assert many["7.args.0"] == once["f.args.0"]


def test_a_module_of_flax_counts_by_its_functions():
    from flax import nnx

    from jaxgen.target.networks import freeze

    class Small(nnx.Module):
        def __init__(self, act):
            self.layer, self.act = nnx.Linear(2, 2, rngs=nnx.Rngs(0)), act

        def __call__(self, z):
            return self.act(self.layer(z))

    def network(act):
        return freeze(Small(act))

    was = describe(network(jnp.sin), "generator")
    lines = difference(was, describe(network(jnp.cos), "generator"))
    assert [line.split(" was ")[0] for line in lines] == ["generator.graphdef"]
    assert difference(was, describe(network(jnp.sin), "generator")) == []


def test_what_is_too_deep_is_refused_in_a_sentence():
    deep = []
    for _ in range(300):
        deep = [deep]
    with pytest.raises(jaxgen.InputError, match="nested more than"):
        describe({"f": functools.partial(max, deep)})
