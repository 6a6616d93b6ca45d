"""`python -m weights_convert`: see `weights_convert.cli`."""

import os

# Conversion is bookkeeping: it neither needs an accelerator nor should it occupy one.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxgen.core.leaving import leave
from weights_convert.cli import main

leave(main())
