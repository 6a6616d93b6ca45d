"""Formulas of the documentation: LaTeX between dollars becomes MathML when the site is built.

Browsers draw MathML themselves, so that formulas need neither a script nor a network, and
readers with a screen reader hear them. A hook of mkdocs: see `docs/mkdocs.yml`.
"""

from __future__ import annotations

import re

from latex2mathml.converter import convert

# $$ ... $$ by itself, or $...$ within a line; code is left alone.
_CODE = re.compile(r"(```.*?```|~~~.*?~~~|`[^`\n]+`)", re.DOTALL)
_BLOCK = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
_INLINE = re.compile(r"(?<![\\$\w])\$(?=\S)([^$\n]+?)(?<=\S)\$(?![\w$])")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Return a page with its formulas as MathML."""
    parts = _CODE.split(markdown)
    return "".join(part if k % 2 else _formulas(part) for k, part in enumerate(parts))


def _formulas(text: str) -> str:
    text = _BLOCK.sub(lambda match: f"\n<div>{_mathml(match[1], 'block')}</div>\n", text)
    return _INLINE.sub(lambda match: _mathml(match[1], "inline"), text)


def _mathml(latex: str, display: str) -> str:
    return convert(" ".join(latex.split()), display=display)
