"""jaxgen: samples from the posterior of a pretrained generator.

log p(z | condition) = log p(z) + log p(condition | G(z)) + const

The public names stand in `jaxgen.public`, which is imported when the first of them is used:
JAX, Flax and the sampler take a second that `jaxgen --help` does not need (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jaxgen.core import aliases
from jaxgen.core.version import __version__ as __version__

if TYPE_CHECKING:
    from jaxgen.public import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Return a public name; AttributeError for any other, so that folders can be imported."""
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module 'jaxgen' has no attribute {name!r}")
    public = import_module("jaxgen.public")
    if name in globals():  # what its import has put here: a folder, or a module's former name
        return globals()[name]
    try:
        return getattr(public, name)
    except AttributeError:
        raise AttributeError(f"module 'jaxgen' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    """Return the public names, for completion in notebooks."""
    return sorted({*globals(), *import_module("jaxgen.public").__all__})


aliases.listen()
