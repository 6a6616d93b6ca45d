"""`python -m weights_convert`: see `weights_convert.cli`."""

import os
import sys

# Conversion is bookkeeping: it neither needs an accelerator nor should it occupy one.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from weights_convert.cli import main

sys.exit(main())
