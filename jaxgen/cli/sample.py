"""`jaxgen sample`: images of a class, drawn from the posterior of a generator."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from jaxgen.cli.options import Commands, Parser, add_output, add_sampling

if TYPE_CHECKING:  # `jaxgen --help` imports none of these
    from jaxgen.cli import runs

__all__ = ["add"]

_COLUMNS = 16


def add(commands: Commands, name: str) -> None:
    """Add the command to a parser."""
    parser: Parser = commands.add_parser(
        name,
        help="draw images of a class",
        description="Draw images of one or all classes: p(z) p(class | G(z)), annealed.",
        epilog="Example: jaxgen sample --class sneaker --chains 32 --out sneakers",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--class", dest="label", metavar="CLASS", help="the class to draw: name or index"
    )
    which.add_argument(
        "--classes",
        metavar="CLASSES",
        help="several classes, each into a folder of its own below --out: all, or names and "
        "indices with commas between",
    )
    parser.add_argument(
        "--model",
        default="fashion-mnist/gan",
        help="generator: a name or a file (default: %(default)s)",
    )
    parser.add_argument(
        "--classifier",
        default="fashion-mnist/classifier",
        help="classifier that says what a class is: a name or a file (default: %(default)s)",
    )
    add_sampling(parser)
    add_output(parser, "sample-CLASS")
    parser.set_defaults(run=_run)


def _run(options: Namespace) -> int:
    import jax

    import jaxgen
    from jaxgen.cli import runs
    from jaxgen.cli.options import class_index
    from jaxgen.cli.progress import Reporter
    from jaxgen.cli.reconstruct import pick
    from jaxgen.plotting.pictures import class_grid

    settings = runs.Settings.of(options)
    generator = runs.load(options.model, "generator", "--model")
    classifier = runs.load(options.classifier, "classifier", "--classifier")
    runs.image_shape(generator)
    names = classifier.info.classes
    if options.classes is not None:
        return _each(options, settings, generator, classifier)
    label = class_index(options.label, names)
    stem = names[label].replace("/", "-").replace(" ", "-")
    path = runs.out_folder(options, f"sample-{stem}")
    key = jax.random.key(settings.seed)

    steps = settings.warmup + settings.steps
    each = settings.num_mcmc_steps or 2
    with Reporter(1, quiet=options.quiet, num_mcmc_steps=each, steps=steps) as reporter:
        condition = jaxgen.ClassLogSoftmax(classifier.network, runs.label_array(label))
        target = runs.posterior(generator, condition)
        chain_key, name = runs.class_key(key, label), f"class_{label}"
        done = runs.run(chain_key, target, settings, reporter, name, names[label], path)
    finished = runs.with_judge_agreement([done], [label], names)
    columns = min(_COLUMNS, settings.chains)
    grid = class_grid([pick(done, columns) for done in finished], [d.label for d in finished])
    data = runs.summary("sample", vars(options), [generator, classifier], finished)
    data = runs.save(path, data, finished, {"samples.png": grid}, force=options.force)
    runs.print_results(data, path, as_json=options.json)
    return 0


def _each(options: Namespace, settings: Any, generator: runs.Model, classifier: runs.Model) -> int:
    """Several classes by one program, each into a folder of its own."""
    import numpy as np

    import jaxgen
    from jaxgen.cli import many, runs
    from jaxgen.cli.reconstruct import OfClass, pick, pick_of
    from jaxgen.plotting.pictures import class_grid

    names = classifier.info.classes
    labels = _labels(options.classes, names)
    path = runs.out_folder(options, "sample-classes")
    columns = min(_COLUMNS, settings.chains)
    models = [generator, classifier]
    folders = many.folder_names([names[label] for label in labels])
    items = [many.Item(f, names[k], k) for f, k in zip(folders, labels, strict=True)]

    def save(item: many.Item, done: runs.Finished) -> many.Saved:
        (found,) = runs.with_judge_agreement([done], [item.number], names)
        return many.Saved(
            found, {"samples.png": class_grid([pick(found, columns)], [item.label])}, {}
        )

    def picture(entries: Any) -> dict[str, Any]:
        rows = [pick_of(entry.image, entry.weights, columns) for entry in entries]
        return {"samples.png": class_grid(rows, [entry.label for entry in entries])}

    numbers = np.arange(len(names), dtype=np.int32)
    prior = jaxgen.Gaussian.standard(generator.info.input_shape)
    make = OfClass(prior, generator.network, classifier.network)
    job = many.Job(path, options, "sample", models, items, numbers)
    failed = many.run(job, make, settings, save)
    return many.finish(job, failed, picture)


def _labels(text: str, names: tuple[str, ...]) -> list[int]:
    """Return the classes that --classes names, in their order, each once."""
    from jaxgen.cli.options import class_index
    from jaxgen.core.errors import expected
    from jaxgen.data import NONE_OF_THESE

    if text == "all":  # what is none of the classes is drawn where it is asked for by name
        return [label for label, name in enumerate(names) if name != NONE_OF_THESE]
    words = [word.strip() for word in text.split(",")]
    labels = [class_index(word, names, "--classes") for word in words]
    if len(set(labels)) < len(labels):
        raise expected("--classes", "each class once", text)
    return labels
