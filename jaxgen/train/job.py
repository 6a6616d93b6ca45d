"""A recipe, and the job of carrying it out: its loop with checkpoints, its weight files.

The methods' own parts are in `generator_jobs`, `conditional_jobs` and `text_jobs`: functions
that take a `Job`, train, and yield the weight files that they wrote.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from jaxgen.core.types import ArrayTree, PRNGKey
from jaxgen.models.weights import flatten, save_weights
from jaxgen.train.loop import train_loop

__all__ = ["UNIT", "Job", "Progress", "Recipe", "rows"]

Progress = Callable[[int, dict[str, float]], None]

# Preprocessing, of most networks that read images.
UNIT = "images [28, 28, 1] in [0, 1]; the network scales them itself"
_FASHION = "Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, MIT licence), 60 000 training images"


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
      method: "gan", "projected", "vae", "classifier", "rejecting", "toy", "began", "bgan",
        "realism", "ppgn", "captions", "autoencoder", "seqgan" or "maskgan": the file of
        `jaxgen.train`.
      steps: number of updates.
      seed: of the only random key.
      options: the hyper-parameters that differ from the method's defaults.
      model: configuration of the network.
      dtype: how the weights are stored.
    """

    method: str
    steps: int
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float16"


@dataclass(frozen=True)
class Job:
    """One run of a recipe: what every method needs to know, its loop and its weight files.

    Attributes:
      name: a key of `jaxgen.train.recipes.RECIPES`.
      recipe: with the number of updates and the seed that were asked for.
      config: the method's configuration, made from the recipe's options.
      out: the folder for the weight files and the checkpoint.
      data_dir: the folder of Fashion-MNIST, None for the usual ones.
      progress: called with the number of updates done and the mean metrics since.
      snapshots: numbers of updates after which a GAN's generator is also written.
      devices: to spread each batch over.
      text: a file with a sentence on each line, for networks of words.
    """

    name: str
    recipe: Recipe
    config: Any
    out: Path
    data_dir: str | None
    progress: Progress | None
    snapshots: tuple[int, ...] = ()
    devices: tuple[Any, ...] | None = None
    text: Path | None = None

    def loop(
        self,
        key: PRNGKey,
        state: object,
        step: Any,
        batcher: Any,
        arrays: object,
        *,
        stage: str = "",
        first: int = 0,
        steps: int | None = None,
        mark: str = "",
        **more: Any,
    ):
        """`train_loop` with this run's checkpoint.

        Args:
          key: of the loop; see `train_loop`.
          state: the state to begin with.
          step: the update.
          batcher: makes a batch of the data.
          arrays: the data.
          stage: of a run with several loops: the checkpoint is its own.
          first: updates in the stages before.
          steps: the recipe's if none is given.
          mark: of the data, if they are the user's: a checkpoint of others is refused.
          **more: further options of `train_loop`.
        """
        tell = self.progress
        ending = f"-{stage}" if stage else ""
        return train_loop(
            key,
            state,
            step,
            batcher,
            arrays,
            steps=self.recipe.steps if steps is None else steps,
            checkpoint=self.out / f"{_file_name(self.name)}{ending}.checkpoint",
            fingerprint=json.dumps([self.name, repr(self.recipe), *([mark] if mark else [])]),
            progress=None if tell is None else lambda done, found: tell(first + done, found),
            devices=self.devices,
            **more,
        )

    def weights(self, name: str) -> Path:
        """Return where this run's file of weights of that name is, or will be."""
        return self.out / f"{_file_name(name)}.safetensors"

    def save(
        self,
        name: str,
        architecture: str,
        module: nnx.Module,
        config: dict[str, Any],
        preprocessing: str,
        measured: Callable[[Path], dict[str, Any]],
        **extra: object,
    ) -> Path:
        """Store a network, measure it as stored, and store it again with its figures.

        Args:
          name: of the weight file.
          architecture: of the network.
          module: the network.
          config: its configuration.
          preprocessing: what images have to be for it.
          measured: the figures of a weight file.
          extra: more of the metadata, or in the place of these.
        """
        path = self.weights(name)
        recipe = self.recipe
        metadata = {
            "name": name,
            "architecture": {"name": architecture, "config": config},
            "preprocessing": preprocessing,
            "data": _FASHION,
            "recipe": {
                "method": f"jaxgen.train.{recipe.method}",
                "steps": recipe.steps,
                "seed": recipe.seed,
                **_options(self.config),
            },
            "licence": "Apache-2.0",
            **extra,
        }
        arrays = flatten(module)
        save_weights(path, arrays, {**metadata, "figures": {}}, dtype=recipe.dtype)
        metadata["figures"] = measured(path)
        save_weights(path, arrays, metadata, dtype=recipe.dtype)
        return path


def rows(key: PRNGKey, count: int, arrays: ArrayTree) -> Any:
    """`count` rows drawn with replacement, the same ones of every array `[N, ...]`."""
    size = jax.tree.leaves(arrays)[0].shape[0]
    chosen = jax.random.randint(key, (count,), 0, size)
    return jax.tree.map(lambda array: array[chosen], arrays)


def _options(config: Any) -> dict[str, Any]:
    """Return a configuration, named tuple or dataclass, by the names of its fields."""
    return config._asdict() if hasattr(config, "_asdict") else dataclasses.asdict(config)


def _file_name(name: str) -> str:
    return name.replace("/", "_").replace("-", "_")
