"""What `inpaint` and `superres` do with one observed image, or with each image of a folder."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.cli import many, reconstruct, runs
from jaxgen.cli.progress import Reporter
from jaxgen.core.types import ArrayTree
from jaxgen.plotting.pictures import reconstructions
from jaxgen.report.reading import Entry
from jaxgen.target.conditions import Condition

__all__ = ["Command", "each", "one"]


class Command(NamedTuple):
    """A command and its settings.

    Attributes:
      name: of the command.
      options: as parsed.
      settings: of the sampler.
      models: the networks: first the generator; a classifier is added where --class was given.
      picture: file name of the picture that it draws.
    """

    name: str
    options: Namespace
    settings: runs.Settings
    models: list[runs.Model]
    picture: str


def one(
    command: Command,
    task: reconstruct.Task,
    condition: Condition,
    view: Mapping[str, np.ndarray],
    **facts: Any,
) -> int:
    """Sample the posterior of one image, save it and print its figures; returns the exit code.

    Args:
      command: what was asked for.
      task: what is known of the image.
      condition: on the pixels that were seen.
      view: arrays to store beside the draws, `mask` or `view`.
      facts: for the summary.
    """
    options, settings, models = command.options, command.settings, command.models
    full = reconstruct.add_class_term(options, condition, models)
    target = runs.posterior(models[0], full)
    target.check()
    path = runs.out_folder(options, command.name)
    steps = settings.warmup + settings.steps
    each = settings.num_mcmc_steps or 2
    with Reporter(1, quiet=options.quiet, num_mcmc_steps=each, steps=steps) as reporter:
        key = jax.random.key(settings.seed)
        done = runs.run(key, target, settings, reporter, "image", task.label, path)
    saved = reconstruct.saved(done, task, target, condition, command.picture, **view)
    data = runs.summary(command.name, vars(options), models, [saved.done], **facts)
    data = runs.save(
        path, data, [saved.done], saved.pictures, force=options.force, more=saved.arrays
    )
    runs.print_results(data, path, as_json=options.json)
    return 0


def each(
    command: Command,
    tasks: Sequence[reconstruct.Task],
    data: ArrayTree,
    condition: Callable[[ArrayTree], Condition],
    views: Sequence[Mapping[str, np.ndarray]],
) -> int:
    """Sample every image by one program, each into a folder of its own; returns the exit code.

    Args:
      command: what was asked for.
      tasks: N, what is known of each image.
      data: what was seen, a tree of arrays `[N, ...]`.
      condition: one item of `data` -> the condition on the pixels that were seen.
      views: N, arrays to store beside the draws.
    """
    options = command.options
    make = reconstruct.posteriors(options, condition, command.models)
    path = runs.out_folder(options, command.name)
    folders = many.folder_names([task.label for task in tasks])
    pairs = enumerate(zip(folders, tasks, strict=True))
    items = [many.Item(folder, task.label, i) for i, (folder, task) in pairs]
    job = many.Job(path, options, command.name, command.models, items, data)

    def save(item: many.Item, done: runs.Finished) -> many.Saved:
        observed = jax.tree.map(lambda x: x[item.number], data)
        return reconstruct.saved(
            done,
            tasks[item.number],
            make(observed),
            condition(observed),
            command.picture,
            **views[item.number],
        )

    def draw(entries: Sequence[Entry]) -> dict[str, Any]:
        heading = reconstruct.heading_of(tasks[0])
        return {command.picture: reconstructions(reconstruct.rows_of(entries), observed=heading)}

    failed = many.run(job, make, command.settings, save)
    return many.finish(job, failed, draw)
