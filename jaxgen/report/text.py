"""Text that somebody else wrote, as HTML that shows what there is and does nothing."""

from __future__ import annotations

import html

from jaxgen.core.errors import visible

__all__ = ["escape"]


def escape(text: str) -> str:
    """Markup as characters, and invisible or direction-changing characters as escapes."""
    return html.escape(visible(text))
