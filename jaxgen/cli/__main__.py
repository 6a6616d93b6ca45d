"""`python -m jaxgen.cli`, the same as `jaxgen`."""

from jaxgen.cli import entry

entry()
