"""`jaxgen sample`: images of a class, drawn from the posterior of a generator."""

from __future__ import annotations

from typing import Any

from jaxgen.cli.options import Parser, add_output, add_sampling

__all__ = ["add"]

_COLUMNS = 16


def add(commands: Any, name: str) -> None:
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
    which.add_argument("--classes", choices=("all",), help="every class in turn")
    parser.add_argument(
        "--model",
        default="fashion-mnist/dcgan",
        help="generator: a name or a file (default: %(default)s)",
    )
    parser.add_argument(
        "--classifier",
        default="fashion-mnist/cnn",
        help="classifier that says what a class is: a name or a file (default: %(default)s)",
    )
    add_sampling(parser)
    add_output(parser, "sample-CLASS")
    parser.set_defaults(run=_run)


def _run(options: Any) -> int:
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
    labels = range(len(names)) if options.classes else [class_index(options.label, names)]
    stem = "all" if options.classes else names[labels[0]].replace("/", "-").replace(" ", "-")
    path = runs.out_folder(options, f"sample-{stem}")
    key = jax.random.key(settings.seed)

    finished = []
    steps = settings.warmup + settings.steps
    with Reporter(
        len(labels), quiet=options.quiet, moves=settings.moves or 2, steps=steps
    ) as reporter:
        for label in labels:
            condition = jaxgen.ClassLogSoftmax(classifier.network, runs.label_array(label))
            target = runs.posterior(generator, condition)
            chain_key, name = runs.class_key(key, label), f"class_{label}"
            done = runs.run(chain_key, target, settings, reporter, name, names[label], path)
            finished.append(done)

    finished = runs.judged(finished, labels, names)
    columns = min(_COLUMNS, settings.chains)
    grid = class_grid([pick(done, columns) for done in finished], [d.label for d in finished])
    data = runs.summary("sample", vars(options), [generator, classifier], finished)
    data = runs.save(path, data, finished, {"samples.png": grid}, force=options.force)
    runs.print_results(data, path, as_json=options.json)
    return 0
