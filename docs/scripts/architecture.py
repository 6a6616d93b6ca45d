"""Draw the rooms of `jaxgen` and what they stand on, from the imports as they are.

    python docs/scripts/architecture.py            # writes docs/architecture.svg
    python docs/scripts/architecture.py --check    # says whether the drawing is up to date

A room is a folder of the package or a file beside `__init__.py`. An arrow leads from a room to
one that it imports; arrows that follow from two others (a imports b, b imports c, a imports c)
are left out of the drawing, and the page lists all.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
PACKAGE = HERE.parent / "jaxgen"
DRAWING = HERE / "architecture.svg"
ROOF = "jaxgen/__init__.py"
ROOF_FILES = ("__init__", "public")  # the second has the names of the first
WIDTH, ROW, BOX, TALL = 860, 84, 150, 40


def arrows(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Each room with the rooms that its files import, wherever the statement stands."""
    found: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).with_suffix("").parts[0]
        room = ROOF if room in ROOF_FILES else room
        found.setdefault(room, set())
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == "jaxgen":
                names = [f"jaxgen.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                first, _, rest = name.partition(".")
                if first == "jaxgen":
                    other = rest.split(".")[0]
                    found[room].add(ROOF if other in ("", *ROOF_FILES) else other)
    return {room: others - {room} for room, others in found.items()}


def floors(below: dict[str, set[str]]) -> dict[str, int]:
    """Return the floor of each room: one above the highest that it imports. Circles are refused."""
    known: dict[str, int] = {}

    def floor(room: str, seen: tuple[str, ...] = ()) -> int:
        if room in seen:
            raise SystemExit(f"imports run in a circle: {' -> '.join((*seen, room))}")
        if room not in known:
            known[room] = max((floor(o, (*seen, room)) + 1 for o in below[room]), default=0)
        return known[room]

    for room in below:
        floor(room)
    return known


def needed(below: dict[str, set[str]]) -> dict[str, set[str]]:
    """Arrows that do not follow from others."""

    def reach(room: str) -> set[str]:
        return below[room].union(*(reach(other) for other in below[room]))

    return {
        room: {o for o in others if not any(o in reach(p) for p in others - {o})}
        for room, others in below.items()
    }


def draw(below: dict[str, set[str]]) -> str:
    """Return the drawing: a row for each floor, the ground floor at the bottom."""
    level = floors(below)
    top = max(level.values())
    places = {}
    for number in range(top + 1):
        rooms = sorted(room for room in below if level[room] == number)
        for i, room in enumerate(rooms):
            x = WIDTH * (i + 1) / (len(rooms) + 1) + (25 if number % 2 else -25)
            places[room] = (x, 20 + (top - number) * ROW)
    height = top * ROW + TALL + 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="14">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#6b7a80"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for room, others in sorted(needed(below).items()):
        for other in sorted(others):
            (x, y), (u, v) = places[room], places[other]
            lines.append(
                f'<path d="M{x:.0f} {y + TALL}C{x:.0f} {y + TALL + 35} {u:.0f} {v - 40} '
                f'{u:.0f} {v - 1}" fill="none" stroke="#6b7a80" marker-end="url(#tip)"/>'
            )
    for room, (x, y) in sorted(places.items()):
        lines.append(
            f'<rect x="{x - BOX / 2:.0f}" y="{y}" width="{BOX}" height="{TALL}" rx="6" '
            'fill="#e3f1ef" stroke="#00796b"/>'
            f'<text x="{x:.0f}" y="{y + 25}" text-anchor="middle" fill="#12312d">{room}</text>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def main() -> None:
    """Write the drawing, or compare it with the one that is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    below = arrows()
    drawing = draw(below)
    if not options.check:
        DRAWING.write_text(drawing)
    elif not DRAWING.exists() or DRAWING.read_text() != drawing:
        sys.exit("docs/architecture.svg is out of date: run python docs/scripts/architecture.py")
    level = floors(below)
    count = sum(map(len, below.values()))
    print(f"{len(below)} rooms, {max(level.values()) + 1} floors, {count} arrows")
    for room in sorted(below, key=lambda name: (-level[name], name)):
        print(f"{level[room]:3d}  {room}: {', '.join(sorted(below[room])) or 'nothing'}")


if __name__ == "__main__":
    main()
