"""`jaxgen inpaint`: the rest of an image, drawn from the posterior given what is seen."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from jaxgen.cli.options import Commands, Parser, add_models, add_output, add_sampling, noise_level

if TYPE_CHECKING:  # `jaxgen --help` imports none of these
    import numpy as np

    from jaxgen.cli import inputs, reconstruct

__all__ = ["add"]


def add(commands: Commands, name: str) -> None:
    """Add the command to a parser."""
    parser: Parser = commands.add_parser(
        name,
        help="complete an image of which a part is hidden",
        description="Draw completions of an image: p(z) N(observed pixels; G(z), noise^2), "
        "annealed. Without --mask, transparent pixels are hidden. IMAGE may be a folder of images: "
        "each gets a folder below --out.",
        epilog="Example: jaxgen inpaint example:12 --mask lower-half --noise 0.1",
    )
    add_models(parser)
    parser.add_argument(
        "--mask",
        metavar="MASK",
        help="what is hidden: lower-half, upper-half, left-half, right-half or "
        "box:row,column,height,width; or a picture (white is observed) or npy file (1 is)",
    )
    parser.add_argument(
        "--noise",
        type=noise_level,
        default=0.1,
        metavar="SD",
        help="standard deviation of the observation's noise, in units of pixel values from 0 to 1; "
        "or learn, or student-t, to infer it from the image (default: %(default)s)",
    )
    group = parser.add_argument_group("photographs of faces (--generator mobilestylegan-ffhq)")
    group.add_argument(
        "--aligned",
        action="store_true",
        help="IMAGE is cropped as in FFHQ: a square with the eyes at 0.375 and 0.625 of its width "
        "and 0.47 of its height, the mouth at 0.73",
    )
    group.add_argument(
        "--landmarks",
        metavar="X,Y,X,Y,X,Y",
        help="column and row of both eyes (the one on the left of the picture first) and of the "
        "middle of the mouth, in pixels: the picture is turned and cropped by them",
    )
    add_sampling(parser)
    add_output(parser, "inpaint")
    parser.set_defaults(run=_run)


def _run(options: Namespace) -> int:
    from pathlib import Path

    import numpy as np

    from jaxgen.cli import inputs, many, observed, reconstruct, runs
    from jaxgen.core.errors import expected

    settings = runs.Settings.of(options)
    if options.model == "mobilestylegan-ffhq":
        from jaxgen.cli import faces

        return faces.run(options)
    for option in ("aligned", "landmarks"):
        if getattr(options, option):
            hint = "Give --generator mobilestylegan-ffhq"
            raise expected(f"--{option}", "a generator of faces", options.model, hint)
    generator = runs.load(options.model, "generator", "--model")
    height, width, channels = runs.image_shape(generator)
    command = observed.Command("inpaint", options, settings, [generator], "inpainting.png")
    size = (height, width)
    if not Path(options.image).is_dir():
        picture = inputs.read_image(options.image, [size], channels, options.data_dir)
        mask = _mask(options, picture, size)
        condition = reconstruct.pixel_condition(picture.image, mask, options.noise)
        task = _task(options, picture, mask)
        count = int(np.sum(mask > 0))
        return observed.one(command, task, condition, {"mask": mask}, observed_pixels=count)

    def read(path: str) -> tuple[inputs.Picture, np.ndarray]:
        picture = inputs.read_image(path, [size], channels)
        return picture, _mask(options, picture, size)

    if options.mask is not None:
        inputs.read_mask(options.mask, size)  # an error of its own, not one of the images
    found = many.read_all(many.pictures_in(Path(options.image)), read)
    seen = [np.where(mask[..., None] > 0, p.image, 0.0).astype(np.float32) for p, mask in found]
    data = (np.stack(seen), np.stack([np.asarray(mask, np.float32) for _, mask in found]))
    tasks = [_task(options, picture, mask) for picture, mask in found]
    views = [{"mask": mask} for _, mask in found]
    return observed.each(command, tasks, data, reconstruct.OfPixels(options.noise), views)


def _task(options: Namespace, picture: inputs.Picture, mask: np.ndarray) -> reconstruct.Task:
    """Return what is known of an image, for tables and pictures."""
    from jaxgen.cli import reconstruct
    from jaxgen.plotting.pictures import masked

    return reconstruct.Task(
        truth=picture.image if picture.mask is None else None,
        hidden=1 - mask,
        shown=masked(picture.image, mask),
        label=picture.name,
        note=options.mask or "transparent",
    )


def _mask(options: Namespace, picture: inputs.Picture, size: tuple[int, int]) -> np.ndarray:
    """Return 1 where the image was seen, by --mask and by the picture's transparency."""
    from jaxgen.cli import inputs
    from jaxgen.core.errors import expected

    if options.mask is None:
        if picture.mask is None:
            hint = "As in --mask lower-half or --mask box:8,8,12,12"
            raise expected("--mask", "a mask for an image without transparency", "none", hint)
        return picture.mask
    mask = inputs.read_mask(options.mask, size)
    # What is transparent was never seen.
    return mask if picture.mask is None else mask * picture.mask
