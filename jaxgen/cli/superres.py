"""`jaxgen superres`: a sharp image, drawn from the posterior given a coarse view of it."""

from __future__ import annotations

from argparse import Namespace

from jaxgen.cli.options import (
    Commands,
    Parser,
    add_models,
    add_output,
    add_sampling,
    noise_level,
    whole,
)

__all__ = ["add"]


def add(commands: Commands, name: str) -> None:
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


def _run(options: Namespace) -> int:
    from pathlib import Path

    import jax.numpy as jnp
    import numpy as np

    import jaxgen
    from jaxgen.applications import tasks
    from jaxgen.cli import inputs, many, observed, reconstruct, runs
    from jaxgen.core.errors import expected

    settings = runs.Settings.of(options)
    generator = runs.load(options.model, "generator", "--model")
    height, width, channels = shape = runs.image_shape(generator)
    factor = options.factor
    if height % factor or width % factor:
        raise expected("--factor", f"a divisor of {height} and {width}", factor)
    small = (height // factor, width // factor)
    command = observed.Command("superres", options, settings, [generator], "superresolution.png")
    condition = reconstruct.OfView(options.noise, factor, options.method, shape)
    blank = jnp.zeros((*small, channels), jnp.float32)
    reduce = jaxgen.LowResolution(blank, tasks.unit_noise(1.0), factor, options.method).view

    def view_of(picture: inputs.Picture) -> np.ndarray:
        if picture.image.shape != shape:
            return picture.image
        return np.asarray(reduce(jnp.asarray(picture.image)))

    def task_of(picture: inputs.Picture, view: np.ndarray) -> reconstruct.Task:
        return reconstruct.Task(
            truth=picture.image if picture.image.shape == shape else None,
            hidden=None,
            shown=view,
            label=picture.name,
            note=f"{factor}x {options.method}",
        )

    def read(path: str, folder: str | None = None) -> inputs.Picture:
        picture = inputs.read_image(path, [(height, width), small], channels, folder)
        if picture.mask is not None:
            raise expected("IMAGE", "an opaque image", f"{picture.name}, partly transparent")
        return picture

    if not Path(options.image).is_dir():
        picture = read(options.image, options.data_dir)
        view = view_of(picture)
        seen = condition(jnp.asarray(view))
        return observed.one(command, task_of(picture, view), seen, {"view": view})
    pictures = many.read_all(many.pictures_in(Path(options.image)), read)
    data = np.stack([view_of(picture) for picture in pictures]).astype(np.float32)
    tasks = [task_of(picture, view) for picture, view in zip(pictures, data, strict=True)]
    return observed.each(command, tasks, data, condition, [{"view": view} for view in data])
