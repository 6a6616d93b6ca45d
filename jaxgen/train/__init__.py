"""Training: one file per method, one shared loop, and the recipes of what is shipped."""

from jaxgen.train.recipes import RECIPES, Recipe, run

__all__ = ["RECIPES", "Recipe", "run"]
