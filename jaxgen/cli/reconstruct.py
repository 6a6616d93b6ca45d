"""What `inpaint`, `superres` and `demo` share: an image from part of it, and its picture."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen.applications import tasks
from jaxgen.applications.noise import Observed
from jaxgen.cli import options as texts
from jaxgen.cli.runs import Finished, Model, draws, label_array, load
from jaxgen.core.pytree import pytree, static
from jaxgen.core.types import Array, ArrayTree, Classifier, Generator, Prior
from jaxgen.plotting.pictures import ReconstructionRow, masked
from jaxgen.target.conditions import Condition
from jaxgen.target.posterior import Posterior

if TYPE_CHECKING:  # `many` imports this file
    pass

__all__ = [
    "OfClass",
    "OfPixels",
    "OfView",
    "Posteriors",
    "Task",
    "add_class_term",
    "add_misfit",
    "arrays",
    "finish",
    "heading_of",
    "pick",
    "pick_of",
    "pixel_condition",
    "posteriors",
    "row",
    "rows_of",
    "saved",
]


Interval = tuple[np.ndarray, np.ndarray]


class Task(NamedTuple):
    """An image to infer, and what was seen of it.

    Attributes:
      truth: the whole image `[H, W, channels]`, or None.
      hidden: `[H, W]`, 1 where the sampler saw nothing, or None where it saw another view.
      shown: what it saw, as a picture.
      label, note: for tables and pictures.
    """

    truth: np.ndarray | None
    hidden: np.ndarray | None
    shown: np.ndarray
    label: str
    note: str


def add_class_term(options: Namespace, condition: Condition, models: list[Model]) -> Condition:
    """Return the condition, and the class's log-softmax where --class was given."""
    term = _class_term(options, models)
    return condition if term is None else condition + term


def _class_term(options: Namespace, models: list[Model]) -> jaxgen.ClassLogSoftmax | None:
    """Return the log-softmax of the class of --class, or None, and add its classifier."""
    if options.label is None:
        return None
    classifier = load(options.classifier, "classifier", "--classifier")
    models.append(classifier)
    label = texts.class_index(options.label, classifier.info.classes)
    return jaxgen.ClassLogSoftmax(classifier.network, label_array(label))


@pytree
class OfClass:
    """label -> the posterior of a class; the networks' weights are data."""

    prior: Prior
    generator: Generator
    classifier: Classifier

    def __call__(self, label: Array) -> Posterior:
        """Return the posterior."""
        condition = jaxgen.ClassLogSoftmax(self.classifier, label)
        return Posterior(self.prior, self.generator, condition)


@pytree
class OfPixels:
    """(image, mask) -> what is known of the image: a condition that differs in its data alone."""

    noise: float | str = static()

    def __call__(self, observed: tuple[Array, Array]) -> Observed:
        """Return the condition."""
        image, mask = observed
        condition = jaxgen.ObservedPixels(image, mask, tasks.unit_noise(self.noise))
        return tasks.learned(condition, self.noise)


@pytree
class OfView:
    """view -> what is known of the image."""

    noise: float | str = static()
    factor: int = static()
    method: str = static()
    shape: tuple[int, int, int] = static()

    def __call__(self, view: Array) -> Observed:
        """Return the condition."""
        unit = tasks.unit_noise(self.noise)
        condition = jaxgen.LowResolution(view, unit, self.factor, self.method)
        return tasks.learned(condition, self.noise, None, self.shape)


@pytree
class Posteriors:
    """item -> its posterior; weights and the class are data."""

    prior: Prior
    generator: Generator
    condition: Callable[[ArrayTree], Condition]
    also: Condition | None

    def __call__(self, observed: ArrayTree) -> Posterior:
        """Return the posterior."""
        condition = self.condition(observed)
        full = condition if self.also is None else condition + self.also
        return Posterior(self.prior, self.generator, full)


def posteriors(
    options: Namespace, condition: Callable[[ArrayTree], Condition], models: list[Model]
) -> Posteriors:
    """Return the posteriors of many images, with the class of --class where it was given."""
    generator = models[0]
    prior = jaxgen.Gaussian.standard(generator.info.input_shape)
    return Posteriors(prior, generator.network, condition, _class_term(options, models))


def pixel_condition(image: np.ndarray, mask: np.ndarray, noise: float | str) -> Observed:
    """Return observed pixels as data; hidden pixels are zeroed so that they cannot leak."""
    seen = np.where(mask[..., None] > 0, image, 0.0).astype(np.float32)
    condition = jaxgen.ObservedPixels(jnp.asarray(seen), jnp.asarray(mask), tasks.unit_noise(noise))
    return tasks.learned(condition, noise)


def add_misfit(
    done: Finished, target: Posterior, condition: Condition
) -> tuple[Finished, Interval]:
    """Add credible intervals and whether the generator can show what was seen, and say so."""
    found = tasks.summarise(done.result, target, condition)
    result = done.result._replace(notes=found.notes)
    facts = {**done.facts, **found.facts()}
    return dataclasses.replace(done, facts=facts, result=result), (found.low, found.high)


def saved(
    done: Finished, task: Task, target: Any, condition: Condition, name: str, **view: Any
) -> Any:
    """Return a finished item of a folder of images, as `jaxgen.cli.many` writes it.

    Args:
      done: what was sampled.
      task: what is known of the image.
      target: its posterior.
      condition: the part of its condition that saw pixels.
      name: of the picture.
      view: arrays beside the draws, `mask` or `view`.
    """
    from jaxgen.cli.many import Saved
    from jaxgen.plotting.pictures import reconstructions

    done, interval = add_misfit(finish(done, task), target, condition)
    line = row(done, task, interval)
    stored = {f"{done.name}/{key}": np.asarray(value) for key, value in view.items()}
    return Saved(
        done,
        {name: reconstructions([line], observed=heading_of(task))},
        {**arrays([done], [line]), **stored},
    )


def heading_of(task: Task) -> str:
    """Return the heading of the column that shows what was seen."""
    return "low-resolution" if task.hidden is None else "observed"


def rows_of(entries: Sequence[Any]) -> list[ReconstructionRow]:
    """Rows of a picture, of posteriors that were stored."""
    rows = []
    for entry in entries:
        extra, data = entry.extra, entry.data
        shown = extra.get("truth", extra.get("view"))
        if "mask" in extra:
            shown = masked(extra.get("truth", extra["mean"]), extra["mask"])
        rows.append(
            ReconstructionRow(
                entry.label,
                str(data.get("observed", "")),
                extra.get("truth"),
                extra.get("view", shown),
                extra["mean"],
                list(pick_of(entry.image, entry.weights, 3)),
                extra["deviation"],
                (extra["low"], extra["high"]),
            )
        )
    return rows


def pick(done: Finished, count: int) -> np.ndarray:
    """Return the last draws of `count` chains, evenly spaced in the chains' weights.

    After resampling neighbours may have a common ancestor, so evenly spaced chains are the
    most different ones. Nothing looks at the images.
    """
    return pick_of(done.result.draws["image"], done.result.weights, count)


def pick_of(images: np.ndarray, weights: Any, count: int) -> np.ndarray:
    """Return the same, of images `[C, S, H, W, channels]` and weights `[C]`."""
    weights = np.asarray(weights, np.float64)
    edges = np.cumsum(weights) / weights.sum()
    chains = np.searchsorted(edges, (np.arange(count) + 0.5) / count)
    return images[np.minimum(chains, len(edges) - 1), -1]


def finish(done: Finished, task: Task) -> Finished:
    """Add how far the posterior mean, and a draw on average, are from the truth."""
    facts: dict[str, Any] = {"image": task.label, "observed": task.note}
    if task.truth is not None:
        images, weights = draws(done)
        mean = np.tensordot(weights, images, 1)
        where = np.ones(task.truth.shape[:2]) if task.hidden is None else task.hidden
        if where.any():
            name = "mse" if task.hidden is None else "hidden_mse"
            facts[name] = _mse(mean, task.truth, where)
            facts[f"{name}_of_a_draw"] = float(
                np.dot(weights, [_mse(image, task.truth, where) for image in images])
            )
    return dataclasses.replace(done, facts={**done.facts, **facts})


def row(done: Finished, task: Task, interval: Interval | None = None) -> ReconstructionRow:
    """Return a row of the picture: mean, three draws, deviation, and the ends of the interval."""
    images, weights = draws(done)
    mean = np.tensordot(weights, images, 1)
    deviation = np.sqrt(np.tensordot(weights, (images - mean) ** 2, 1))
    return ReconstructionRow(
        task.label,
        task.note,
        task.truth,
        task.shown,
        mean,
        list(pick(done, 3)),
        deviation,
        interval,
    )


def arrays(
    finished: Sequence[Finished], rows: Sequence[ReconstructionRow]
) -> dict[str, np.ndarray]:
    """Posterior means, deviations and interval ends, to be saved beside the draws."""
    result = {}
    for done, line in zip(finished, rows, strict=True):
        result[f"{done.name}/mean"] = np.asarray(line.mean, np.float32)
        result[f"{done.name}/deviation"] = np.asarray(line.deviation, np.float32)
        if line.interval is not None:
            for name, end in zip(("low", "high"), line.interval, strict=True):
                result[f"{done.name}/{name}"] = np.asarray(end, np.float32)
        if line.truth is not None:
            result[f"{done.name}/truth"] = np.asarray(line.truth, np.float32)
    return result


def _mse(image: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    square = np.mean((np.asarray(image) - truth) ** 2, axis=-1)
    return float(np.sum(where * square) / np.sum(where))
