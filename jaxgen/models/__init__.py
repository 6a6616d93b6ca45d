"""Pretrained models: `load(name)`, `describe(name)`, `available()`."""

from jaxgen.models.registry import ModelInfo, available, describe, load

__all__ = ["ModelInfo", "available", "describe", "load"]
