"""The version, in this one place: the package's metadata and `jaxgen.__version__` read it."""

__all__ = ["__version__"]

__version__ = "0.1.0"
