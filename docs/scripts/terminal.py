"""A picture of the terminal during a command and after it.

    python docs/scripts/terminal.py terminal.svg 30 jaxgen inpaint example:12 ...

runs the command in a pseudo-terminal of 110 columns, notes the screen after so many seconds
and at the end, and draws both, one above the other, as one SVG by Rich (docs/terminal.png is it in
a browser: the SVG itself asks the network for its font). Linux and macOS only.
"""

import os
import pty
import re
import struct
import sys
import time

from rich.console import Console
from rich.text import Text

COLUMNS, ROWS = 110, 40


def screen(raw: bytes) -> list[str]:
    """Return the lines that a terminal shows after these bytes, Rich's movements followed."""
    lines, at, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", raw.decode()):
        if part == "\n":
            at += 1
            lines += [""] * (at + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.endswith("A"):
            at = max(0, at - int(part[2:-1] or 1))
        elif part.endswith("K"):
            lines[at] = ""
        elif not part.startswith("\x1b"):
            old = lines[at].ljust(column)
            lines[at] = old[:column] + part + old[column + len(part) :]
            column += len(part)
    return lines


def main() -> None:
    """Run, look twice, draw."""
    picture, seconds, *command = sys.argv[1:]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
        os.execvp(command[0], command)
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    raw, during, begun = b"", None, time.monotonic()
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # Linux's way to say that the command has ended
            break
        if not data:
            break
        raw += data
        if during is None and time.monotonic() - begun > float(seconds):
            during = screen(raw)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise SystemExit("\n".join(screen(raw)))
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115
    prompt = "$ " + " ".join(command)
    for lines in (during or [], screen(raw)):
        console.print(Text(prompt, style="bold green"))
        console.print(Text("\n".join(lines).rstrip() + "\n"))
    console.save_svg(picture, title="jaxgen")


if __name__ == "__main__":
    main()
