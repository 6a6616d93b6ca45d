"""`jaxgen demo`: class-conditional samples and completed images, on the shipped weights."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from jaxgen.cli.options import Commands, Parser, add_output, whole

if TYPE_CHECKING:  # `jaxgen --help` imports none of these
    from jaxgen.cli import runs

__all__ = ["add"]

_COLUMNS = 16
# One example of a class and what is hidden of it. example:5k is the first test image of
# class k.
_TASKS = (
    (0, "lower-half"),
    (15, "lower-half"),
    (45, "lower-half"),
    (10, "box:8,8,12,12"),
    (35, "box:8,8,12,12"),
    (40, "box:8,8,12,12"),
)
# Those of the default: a garment for the body, one for the foot, and both kinds of masks.
_SHORT = (_TASKS[0], _TASKS[2], _TASKS[4])
_NOISE = 0.2
# What completes images, but for --full.
_SMALL = "fashion-mnist/dcgan"


def add(commands: Commands, name: str) -> None:
    """Add the command to a parser."""
    parser: Parser = commands.add_parser(
        name,
        help="both kinds of samples on the shipped weights, in about a minute",
        description="Draw images of all ten classes, and completions of real test images of "
        "which a part is hidden: three images, or six and more chains with --full.",
        epilog="Example: jaxgen demo --out my-run",
    )
    parser.add_argument(
        "--seed",
        type=whole(0, 2**32 - 1),
        default=0,
        help="integer that fixes all random numbers (default: %(default)s)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--full",
        action="store_true",
        help="six images, more chains and a larger network: several times as long",
    )
    length.add_argument(
        "--quick", action="store_true", help="fewer chains, classes and images: a smoke test"
    )
    add_output(parser, "demo")
    parser.set_defaults(run=_run)


def _run(options: Namespace) -> int:
    import contextlib
    import dataclasses
    import shlex

    import jax

    from jaxgen.cli import reconstruct, runs
    from jaxgen.cli.beside import Beside
    from jaxgen.cli.progress import Reporter
    from jaxgen.data import CLASS_NAMES
    from jaxgen.plotting.pictures import class_grid, reconstructions

    shared = {"seed": options.seed, "checkpoint_every": options.checkpoint_every}
    # Draws of every step or two: R-hat needs at least four of each chain.
    classes = runs.Settings(chains=32 if options.full else 12, warmup=6, steps=6, thin=1, **shared)
    pixels = runs.Settings(
        chains=48 if options.full else 32, num_mcmc_steps=2, warmup=8, steps=10, thin=1, **shared
    )
    if options.quick:
        small = {"chains": 8, "num_mcmc_steps": 1, "warmup": 2, "steps": 2, "thin": 1}
        classes, pixels = (dataclasses.replace(s, **small) for s in (classes, pixels))
    path = runs.out_folder(options, "demo")
    generator = runs.load("fashion-mnist/gan", "generator", "--model")
    # A gradient through it costs a quarter: the default is to take a minute.
    completer = generator if options.full else runs.load(_SMALL, "generator", "--model")
    classifier = runs.load("fashion-mnist/classifier", "classifier", "--classifier")
    names = classifier.info.classes
    labels = range(2 if options.quick else len(CLASS_NAMES))
    tasks = _TASKS[2:4] if options.quick else _TASKS if options.full else _SHORT
    key_classes, key_pixels = jax.random.split(jax.random.key(options.seed))

    sampled, completed, lines, masks = [], [], [], {}
    total = len(labels) + len(tasks)

    def complete(index: int, task: Any, condition: Any, reporter: Any) -> tuple[Any, Any]:
        target = runs.posterior(completer, condition)
        key, title = jax.random.fold_in(key_pixels, index), _title(task)
        done = runs.run(key, target, pixels, reporter, f"example_{index}", title, path)
        done = reconstruct.finish(done, task)
        return reconstruct.add_misfit(done, target, condition)

    # The images are completed beside the classes: each compiles a program of its own, on one core.
    with contextlib.ExitStack() as stack:
        reporter = stack.enter_context(
            Reporter(
                total,
                quiet=options.quiet,
                num_mcmc_steps=classes.num_mcmc_steps or 2,
                steps=classes.warmup + classes.steps,
            )
        )
        beside = stack.enter_context(Beside())
        observed = [_observed(index, hidden, names) for index, hidden in tasks]
        promised = [
            beside.submit(complete, index, *seen)
            for (index, _), seen in zip(tasks, observed, strict=True)
        ]
        for label in labels:
            target = runs.posterior(generator, _class(classifier, label))
            key = runs.class_key(key_classes, label)
            done = runs.run(key, target, classes, reporter, f"class_{label}", names[label], path)
            sampled.append(done)
        for (index, hidden), (task, _), promise in zip(tasks, observed, promised, strict=True):
            reporter.start(_title(task))
            done, interval = beside.result(promise, runs.place(path, f"example_{index}"))
            done.facts["mask"] = hidden  # as --mask takes it, for `jaxgen report`
            completed.append(done)
            lines.append(reconstruct.row(done, task, interval))
            masks[f"example_{index}/mask"] = 1 - task.hidden

    sampled = runs.with_judge_agreement(sampled, labels, names)
    columns = min(_COLUMNS, classes.chains)
    grid = class_grid(
        [reconstruct.pick(done, columns) for done in sampled],
        [done.label for done in sampled],
        title="Draws from p(z | class)",
    )
    rows = reconstructions(lines, title="Draws from p(z | observed pixels), real test images")
    finished = [*sampled, *completed]
    data = runs.summary(
        "demo",
        vars(options),
        [generator, classifier] if options.full else [generator, completer, classifier],
        finished,
        settings={
            "classes": dataclasses.asdict(classes),
            "images": {**dataclasses.asdict(pixels), "noise": _NOISE},
        },
    )
    data = runs.save(
        path,
        data,
        finished,
        {"classes.png": grid, "inpainting.png": rows},
        force=options.force,
        more={**reconstruct.arrays(completed, lines), **masks},
    )
    runs.print_results(data, path, as_json=options.json)
    if not options.json:
        print(f"what it comes to, on one page: jaxgen report {shlex.quote(str(path))}")
    return 0


def _class(classifier: runs.Model, label: int) -> Any:
    import jaxgen
    from jaxgen.cli.runs import label_array

    return jaxgen.ClassLogSoftmax(classifier.network, label_array(label))


def _title(task: Any) -> str:
    return f"{task.label}, {task.note}"


def _observed(index: int, hidden: str, names: tuple[str, ...]) -> tuple[Any, Any]:
    """Return a shipped example, what is known of it, and the condition on its visible pixels."""
    from jaxgen.cli import examples, inputs, reconstruct
    from jaxgen.plotting.pictures import masked

    image = inputs.read_image(f"example:{index}", [(28, 28)], 1).image
    mask = inputs.read_mask(hidden, (28, 28))
    note = "lower half hidden" if hidden == "lower-half" else "box hidden"
    label = names[int(examples.shipped().labels[index])]
    task = reconstruct.Task(image, 1 - mask, masked(image, mask), label, note)
    return task, reconstruct.pixel_condition(image, mask, _NOISE)
