"""`python -m jaxgen.cli`, the same as `jaxgen`."""

import sys

from jaxgen.cli import main

sys.exit(main())
