"""Imports point one way: seen in the syntax tree, not by running anything."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each layer may import from those above it and from its own.
LAYERS = [
    {"cache", "errors", "late", "moments", "pytree", "streaming", "text", "types"}
    | {"whole_files"},
    {"networks", "priors", "conditions", "weights", "data"},
    {"regularizers", "posterior", "metrics", "observations"},
    {"path"},
    {"kernels", "adapt", "schedules", "resampling", "preconditioning", "parallel"},
    {"state"},
    {"engine"},
    {"results"},
    {"setup"},
    {"run", "batch"},
    {"fingerprint", "store"},
    {"ais", "sample", "ascent", "bdmc", "loglik", "diagnostics", "calibration", "export", "ppgn"},
    {"models"},
    {"tasks", "baselines", "infilling"},
    {"train"},
    {"folder", "pictures", "report", "plot"},
    {"cli", "__main__"},
]
# Where the name is allowed at the top level of jaxgen.
ONLY = {
    "flax": {"networks", "weights", "models", "train"},
    "blackjax": {"late"},
}
# Never at module level: imported inside the function that needs them.
LAZY = {"blackjax", "torch", "arviz", "orbax", "matplotlib", "cv2", "torchax"}


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def layer_of(path):
    """A file's place: its name, or that of its folder in the package."""
    parts = path.relative_to(ROOT / "jaxgen").with_suffix("").parts
    return parts[0]


def imported(path):
    """(top-level module, dotted name) of each import statement, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "jaxgen":
                for alias in node.names:
                    if alias.name != "__version__":
                        yield node, f"jaxgen.{alias.name}"
            else:
                yield node, node.module


@pytest.mark.parametrize("path", modules("jaxgen"), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_from_layers_above(path):
    name = layer_of(path)
    if name == "__init__":
        return
    rank = {module: i for i, layer in enumerate(LAYERS) for module in layer}
    assert name in rank, f"{name} has no place in LAYERS"
    for _, module in imported(path):
        if module.startswith("jaxgen."):
            other = module.split(".")[1]
            assert other in rank, f"{path.name} imports {module}, which has no place"
            assert rank[other] <= rank[name], f"{name} must not import {other}"
        assert not module.startswith("weights_convert"), "jaxgen must not import weights_convert"


@pytest.mark.parametrize("path", modules("jaxgen"), ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_in_their_places(path):
    name = layer_of(path)
    for _, module in imported(path):
        top = module.split(".")[0]
        assert name in ONLY.get(top, {name}), f"{name} must not import {top}"


@pytest.mark.parametrize(
    "path", modules("jaxgen") + modules("weights_convert"), ids=lambda p: str(p.relative_to(ROOT))
)
def test_heavy_libraries_are_imported_late(path):
    for node in ast.parse(path.read_text()).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for module in names:
            assert module.split(".")[0] not in LAZY, f"{path.name} imports {module} at once"
