"""jaxgen: samples from the posterior of a pretrained generator."""

from jaxgen.networks import Network, freeze

__all__ = ["Network", "freeze"]
