"""Networks that others published: not shipped, but fetched once and kept in a cache folder.

`jaxgen fetch NAME` obtains, converts and stores them; from then on `jaxgen.load(NAME)` needs
no network.
"""

from __future__ import annotations

from pathlib import Path

from jaxgen.core.cache import cache_folder

__all__ = ["FETCHABLE", "PARTS", "cached"]

FETCHABLE = (
    "progan-celeba128",
    "mobilestylegan-ffhq",
    "digiface-dcgan",
    "omniart-eyes",
    "efficientnet-lite0",
    "face-expression",
    "face-age-gender",
    "face-age",
    "face-gender",
)
"""The names that `jaxgen fetch` knows."""

PARTS = {
    "mobilestylegan-ffhq": (
        "512",
        "256",
        "128",
        "mapping",
        "synthesis",
        "synthesis-512",
        "synthesis-256",
        "synthesis-128",
    ),
    "omniart-eyes": (
        "amber",
        "blue",
        "brown",
        "gray",
        "grayscale",
        "green",
        "hazel",
        "red",
        "any",
    ),
}
"""What else is in a fetched file: `jaxgen.load("mobilestylegan-ffhq/128")`."""


def cached(name: str) -> Path:
    """Return the file of one of `FETCHABLE` in the cache, whether or not it is there."""
    return cache_folder() / f"{name}.safetensors"
