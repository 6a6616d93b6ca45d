"""Pictures of the documentation: those that lie beside `pages` go into the site, too.

A page says `![...](../inpainting.png)`, or `../../` in a folder, which also shows where the
repository is read. In the site the picture is `pictures/inpainting.png`. A hook of mkdocs: see
`docs/mkdocs.yml`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

_FOLDER = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(!\[[^\]]*\]\()((?:\.\./)+)([\w-]+\.(?:png|jpg))\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pictures to the files of the site."""
    for path in sorted(_FOLDER.glob("*.png")) + sorted(_FOLDER.glob("*.jpg")):
        files.append(File.generated(config, f"pictures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page whose pictures are those of the site; one `../` fewer leads to its top."""
    return _LINK.sub(lambda m: f"{m[1]}{m[2].removeprefix('../')}pictures/{m[3]})", markdown)
