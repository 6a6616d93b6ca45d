"""Print one of the README's two set-up commands: `demo` or `test`.

They stand in the README as the shell blocks after the markers
`<!-- command: demo -->` and `<!-- command: test -->`.
"""

import pathlib
import re
import sys

readme = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
pattern = rf"<!-- command: {sys.argv[1]} -->\s*```bash\n(.*?)```"
match = re.search(pattern, readme, re.DOTALL)
if match is None:
    sys.exit(f"README.md has no command marked {sys.argv[1]!r}")
print(match.group(1).strip())
