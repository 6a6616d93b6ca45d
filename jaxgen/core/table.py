"""A table of numbers: named rows, named columns; prints short, and becomes a data frame."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxgen.core.errors import expected, visible

__all__ = ["Table"]

# Rows that are printed; the middle of a longer table is left out.
_MOST_ROWS = 24


class Table(Mapping[str, np.ndarray]):
    """Named columns of one length, with a name for each row.

        table["r_hat"].max(), table.row("z[3]")["mean"], table.to_dataframe()

    Attributes:
      index: the rows' names.
      columns: name -> `[N]`.
    """

    def __init__(self, index: Sequence[str], columns: Mapping[str, Any]) -> None:
        self.index = tuple(index)
        self.columns = {name: np.asarray(column) for name, column in columns.items()}
        for name, column in self.columns.items():
            if column.shape != (len(self.index),):
                raise expected(name, f"a column of {len(self.index)}", list(column.shape))

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column."""
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the columns' names."""
        return iter(self.columns)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self.columns)

    def row(self, name: str) -> dict[str, Any]:
        """Return one row, column -> number."""
        if name not in self.index:
            raise expected("name", f"one of {', '.join(self.index[:6])}, ...", repr(name))
        at = self.index.index(name)
        return {key: column[at] for key, column in self.columns.items()}

    def to_dataframe(self) -> Any:
        """Return a `pandas.DataFrame`, which `pip install pandas` makes possible."""
        import pandas

        return pandas.DataFrame(self.columns, index=list(self.index))

    def __repr__(self) -> str:
        """Return the table as text: at most two dozen rows."""
        heads = ["", *self.columns]
        rows = [heads, *self._texts()]
        widths = [max(len(row[k]) for row in rows) for k in range(len(heads))]
        lines = ["  ".join(f"{c:>{w}}" for c, w in zip(r, widths, strict=True)) for r in rows]
        left = self._left_out()
        if left:
            lines.insert(1 + _MOST_ROWS // 2, f"{'...':>{widths[0]}}  {left} more rows")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{_escaped(name)}</th>" for name in ("", *self.columns))
        body = [
            "<tr>"
            + f"<th>{_escaped(first)}</th>"
            + "".join(f"<td>{c}</td>" for c in rest)
            + "</tr>"
            for first, *rest in self._texts()
        ]
        left = self._left_out()
        if left:
            wide = len(self.columns) + 1
            body.insert(_MOST_ROWS // 2, f'<tr><td colspan="{wide}">... {left} more rows</td></tr>')
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table>"

    def _left_out(self) -> int:
        return max(0, len(self.index) - _MOST_ROWS)

    def _texts(self) -> list[list[str]]:
        chosen = list(range(len(self.index)))
        if self._left_out():
            half = _MOST_ROWS // 2
            chosen = chosen[:half] + chosen[-half:]
        return [
            [visible(self.index[k]), *(_text(name, c[k]) for name, c in self.columns.items())]
            for k in chosen
        ]


def _text(column: str, value: Any) -> str:
    if isinstance(value, str):
        return visible(value)
    if np.isnan(value):
        return "-"
    if column.startswith("ess") or isinstance(value, int | np.integer):
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 1e4 else f"{value:.4g}"


def _escaped(text: str) -> str:
    return html.escape(visible(text))
