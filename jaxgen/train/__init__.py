"""Training: one file per method, one shared loop, and the recipes of what is shipped."""

from jaxgen.train.recipes import RECIPES, Recipe, register, run

__all__ = ["RECIPES", "Recipe", "register", "run"]
