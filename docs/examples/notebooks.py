"""Make executed notebooks of the example scripts: `python docs/examples/notebooks.py`.

The scripts are what is kept; a notebook is made of them and never edited.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = ("class_samples", "evidence", "inpainting")


def make(name: str, folder: Path, timeout: int = 1200) -> Path:
    """Write the executed notebook of one example, and return its path.

    Args:
      name: of the script, without its ending.
      folder: where to write; notebooks run in it.
      timeout: seconds for one cell.

    Raises:
      nbclient.exceptions.CellExecutionError: where a cell fails.
    """
    import jupytext
    import nbformat
    from nbclient import NotebookClient

    notebook = jupytext.read(HERE / f"{name}.py")
    folder.mkdir(parents=True, exist_ok=True)
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources=where).execute()
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def main() -> None:
    """Make them all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--out", type=Path, default=Path("notebooks"), help="(%(default)s)")
    options = parser.parse_args()
    for name in options.names or NAMES:
        if name not in NAMES:
            parser.error(f"NAME: expected one of {', '.join(NAMES)}; got {name!r}")
        print(make(name, options.out))


if __name__ == "__main__":
    main()
