"""Imports go down the floors: seen in the syntax tree, not by running anything."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The rooms, from the ground up. A file may import from its own room and from the floors below;
# two rooms of one floor do not know each other. `jaxgen/__init__.py` and `jaxgen/public.py`
# are the roof.
FLOORS = [
    {"core"},
    {"data", "target", "tempering", "metrics"},
    {"kernels", "models"},
    {"sampler"},
    {"inference"},
    {"diagnostics"},
    {"applications", "posteriors"},
    {"train"},
    {"sequences"},
    {"plotting"},
    {"report"},
    {"cli"},
]
# Where a library is allowed at all: files, or folders with all they hold.
ONLY = {
    "flax": ("target/networks.py", "models/", "train/", "sequences/"),
    "blackjax": ("core/lazy.py",),
}
# Never at module level: imported inside the function that needs them.
LAZY = {"blackjax", "torch", "arviz", "orbax", "matplotlib", "cv2", "torchax"}


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def room_of(path):
    """A file's room: its folder in the package, or its own name."""
    return path.relative_to(ROOT / "jaxgen").with_suffix("").parts[0]


def imported(path):
    """Dotted name of each import statement, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "jaxgen":
            yield from (f"jaxgen.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module


@pytest.mark.parametrize("path", modules("jaxgen"), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_from_floors_below(path):
    room = room_of(path)
    if room in ("__init__", "public"):
        return
    floor = {name: i for i, rooms in enumerate(FLOORS) for name in rooms}
    assert room in floor, f"{room} has no place in FLOORS"
    for module in imported(path):
        assert not module.startswith("weights_convert"), "jaxgen must not import weights_convert"
        if module == "jaxgen":
            assert room == "cli", f"{path.name} imports the roof"
        elif module.startswith("jaxgen."):
            other = module.split(".")[1]
            assert other in floor, f"{path.name} imports {module}, which has no place"
            below = other == room or floor[other] < floor[room]
            assert below, f"{path.name} of {room} must not import {module}"


def test_every_room_has_a_floor_and_every_floor_a_room():
    rooms = {room_of(path) for path in modules("jaxgen")}
    assert rooms - {"__init__", "public"} == set().union(*FLOORS)
    assert sum(map(len, FLOORS)) == len(set().union(*FLOORS))


@pytest.mark.parametrize("path", modules("jaxgen"), ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_in_their_places(path):
    place = str(path.relative_to(ROOT / "jaxgen"))
    for module in imported(path):
        top = module.split(".")[0]
        assert place.startswith(ONLY.get(top, "")), f"{place} must not import {top}"


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
