"""Former places of public modules: `import jaxgen.schedules` finds `jaxgen.tempering.betas`.

Both names give the same module object, so a class has one identity whichever name it was
imported by. Nothing in this package uses the former names.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["FORMER", "install", "listen"]

# Former name -> today's, both below `jaxgen`. What lies in a folder moves with it.
FORMER = {
    "adapt": "tempering.step_size",
    "ascent": "inference.ascent",
    "baselines": "applications.baselines",
    "calibration": "diagnostics.calibration",
    "conditions": "target.conditions",
    "errors": "core.errors",
    "export": "diagnostics.arviz",
    "infilling": "sequences.infilling",
    "models.captioner": "models.fashion_mnist.captioner",
    "models.cnn": "models.fashion_mnist.cnn",
    "models.codes": "models.fashion_mnist.codes",
    "models.dcgan": "models.fashion_mnist.dcgan",
    "models.graph": "models.caffe.graph",
    "models.infillers": "models.text.infillers",
    "models.layers": "models.conv.layers",
    "models.lrcn": "models.caffe.lrcn",
    "models.mlp": "models.fashion_mnist.mlp",
    "models.sequences": "models.text.language_models",
    "models.vae": "models.fashion_mnist.vae",
    "moments": "diagnostics.moments",
    "networks": "target.networks",
    "observations": "target.observations",
    "path": "target.path",
    "pictures": "plotting.pictures",
    "plot": "plotting.plots",
    "posterior": "target.posterior",
    "ppgn": "applications.ppgn",
    "priors": "target.priors",
    "pytree": "core.pytree",
    "regularizers": "target.conditions.regularizers",
    "resampling": "tempering.resampling",
    "results": "sampler.results",
    "schedules": "tempering.betas",
    "store": "sampler.checkpoint",
    "streaming": "diagnostics.streaming",
    "tasks": "applications.tasks",
    "text": "sequences.text",
    "train.maskgan": "sequences.maskgan",
    "train.seqgan": "sequences.seqgan",
    "types": "core.types",
    "weights": "models.weights",
}
# `jaxgen.sample` is a function; its module was found under the same name.
_FUNCTIONS = ("sample", "ais", "bdmc", "loglik")
_ROOT = __name__.partition(".")[0]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answer an import by a former name with the module of today's name."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        new = _todays(fullname)
        if new is None or importlib.util.find_spec(new) is None:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(_todays(spec.name) or "")
        self.own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has put the alias's spec in; the module has run already.
        module.__spec__ = self.own


def listen() -> None:
    """Let former names be imported; loads nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def install() -> None:
    """Let former names be imported, and be attributes as far as their modules are loaded."""
    listen()
    for old, new in FORMER.items():
        module = sys.modules.get(f"{_ROOT}.{new}")
        parent, _, leaf = f"{_ROOT}.{old}".rpartition(".")
        if module is not None and parent in sys.modules:
            sys.modules[f"{_ROOT}.{old}"] = module
            setattr(sys.modules[parent], leaf, module)
    for name in _FUNCTIONS:
        sys.modules[f"{_ROOT}.{name}"] = sys.modules[f"{_ROOT}.inference.{name}"]


def _todays(fullname: str) -> str | None:
    """Today's full name of a module, or None where the name is no former one."""
    root, _, rest = fullname.partition(".")
    if root != _ROOT:
        return None
    parts = rest.split(".")
    for cut in range(len(parts), 0, -1):
        new = FORMER.get(".".join(parts[:cut]))
        if new is not None:
            return ".".join([_ROOT, new, *parts[cut:]])
    return None
