"""`jaxgen superres`: a sharp image, drawn from the posterior given a coarse view of it."""

from __future__ import annotations

from typing import Any

from jaxgen.cli.options import Parser, add_models, add_output, add_sampling, noise_level, whole

__all__ = ["add"]


def add(commands: Any, name: str) -> None:
    """Add the command to a parser."""
    parser: Parser = commands.add_parser(
        name,
        help="sharpen an image from a low-resolution view",
        description="Draw sharp images of which IMAGE is a coarse view: "
        "p(z) N(view; A G(z), noise^2), annealed. An IMAGE of full size is reduced first; it may "
        "be a folder of images: each gets a folder below --out.",
        epilog="Example: jaxgen superres example:33 --factor 4",
    )
    add_models(parser)
    parser.add_argument(
        "--factor",
        type=whole(2),
        default=4,
        help="reduction in each direction, in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--method",
        choices=("average", "stride"),
        default="average",
        help="how the view was made: average of each box, or one pixel (stride) of each box "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--noise",
        type=noise_level,
        default=0.05,
        metavar="SD",
        help="standard deviation of the low-resolution view's noise, in units of pixel values "
        "from 0 to 1; or learn, or student-t, to infer it from the image (default: %(default)s)",
    )
    add_sampling(parser)
    add_output(parser, "superres")
    parser.set_defaults(run=_run)


def _run(options: Any) -> int:
    from pathlib import Path

    import jax
    import jax.numpy as jnp
    import numpy as np

    import jaxgen
    from jaxgen.applications import tasks
    from jaxgen.cli import inputs, reconstruct, runs
    from jaxgen.cli.progress import Reporter
    from jaxgen.core.errors import expected
    from jaxgen.plotting.pictures import reconstructions

    settings = runs.Settings.of(options)
    generator = runs.load(options.model, "generator", "--model")
    height, width, channels = runs.image_shape(generator)
    factor = options.factor
    if height % factor or width % factor:
        raise expected("--factor", f"a divisor of {height} and {width}", factor)
    sizes = [(height, width), (height // factor, width // factor)]
    if Path(options.image).is_dir():
        return _each(options, settings, [generator], (height, width, channels))
    picture = inputs.read_image(options.image, sizes, channels, options.data_dir)
    if picture.mask is not None:
        raise expected("IMAGE", "an opaque image", f"{picture.name}, partly transparent")
    whole_image = picture.image.shape[:2] == sizes[0]

    def condition(view: Any) -> jaxgen.LowResolution:
        noise = tasks.unit_noise(options.noise)
        return jaxgen.LowResolution(jnp.asarray(view), noise, factor, options.method)

    view = picture.image
    if whole_image:
        blank = np.zeros((*sizes[1], channels), np.float32)
        view = np.asarray(condition(blank).view(jnp.asarray(picture.image)))
    models = [generator]
    seen = tasks.learned(condition(view), options.noise, None, (height, width, channels))
    full = reconstruct.add_class_term(options, seen, models)
    target = runs.posterior(generator, full)
    target.check()
    path = runs.out_folder(options, "superres")

    with Reporter(
        1, quiet=options.quiet, moves=settings.moves or 2, steps=settings.warmup + settings.steps
    ) as reporter:
        key = jax.random.key(settings.seed)
        done = runs.run(key, target, settings, reporter, "image", picture.name, path)
    task = reconstruct.Task(
        truth=picture.image if whole_image else None,
        hidden=None,
        shown=view,
        label=picture.name,
        note=f"{factor}x {options.method}",
    )
    done, interval = reconstruct.judge(reconstruct.finish(done, task), target, seen)
    row = reconstruct.row(done, task, interval)
    data = runs.summary("superres", vars(options), models, [done])
    data = runs.save(
        path,
        data,
        [done],
        {"superresolution.png": reconstructions([row], observed="low-resolution")},
        force=options.force,
        more={**reconstruct.arrays([done], [row]), "image/view": view},
    )
    runs.print_results(data, path, as_json=options.json)
    return 0


def _each(options: Any, settings: Any, models: Any, shape: tuple[int, int, int]) -> int:
    """Every image of a folder by one program, each into a folder of its own."""
    from pathlib import Path

    import jax.numpy as jnp
    import numpy as np

    from jaxgen.cli import inputs, many, reconstruct, runs
    from jaxgen.core.errors import expected
    from jaxgen.plotting.pictures import reconstructions

    height, width, channels = shape
    factor, small = options.factor, (height // options.factor, width // options.factor)

    def read(path: str) -> Any:
        picture = inputs.read_image(path, [(height, width), small], channels)
        if picture.mask is not None:
            raise expected("IMAGE", "an opaque image", "one that is partly transparent")
        return picture

    paths = many.pictures_in(Path(options.image))
    pictures = many.read_all(paths, read)
    condition = reconstruct.OfView(options.noise, factor, options.method, shape)
    blank = jnp.zeros((*small, channels), jnp.float32)
    reduce = reconstruct.OfView(1.0, factor, options.method, shape)(blank).view
    data = np.stack(
        [
            np.asarray(reduce(jnp.asarray(p.image))) if p.image.shape == shape else p.image
            for p in pictures
        ]
    ).astype(np.float32)
    make = reconstruct.posteriors(options, condition, models)
    path = runs.out_folder(options, "superres")
    folders = many.folder_names([picture.name for picture in pictures])
    items = [
        many.Item(f, p.name, i) for i, (f, p) in enumerate(zip(folders, pictures, strict=True))
    ]

    def save(item: many.Item, done: runs.Finished) -> many.Saved:
        picture, view = pictures[item.number], data[item.number]
        task = reconstruct.Task(
            truth=picture.image if picture.image.shape == shape else None,
            hidden=None,
            shown=view,
            label=picture.name,
            note=f"{factor}x {options.method}",
        )
        name = "superresolution.png"
        return reconstruct.saved(done, task, make(view), condition(view), name, view=view)

    def draw(entries: Any) -> dict[str, Any]:
        rows = reconstruct.rows_of(entries)
        return {"superresolution.png": reconstructions(rows, observed="low-resolution")}

    failed = many.run(path, options, "superres", models, items, data, make, settings, save)
    return many.finish(path, options, "superres", models, items, failed, draw)
