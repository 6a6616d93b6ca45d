"""`jaxgen inpaint`: the rest of an image, drawn from the posterior given what is seen."""

from __future__ import annotations

from typing import Any

from jaxgen.cli.options import Parser, add_models, add_output, add_sampling, noise_level

__all__ = ["add"]


def add(commands: Any, name: str) -> None:
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
    add_sampling(parser)
    add_output(parser, "inpaint")
    parser.set_defaults(run=_run)


def _run(options: Any) -> int:
    from pathlib import Path

    import jax
    import numpy as np

    from jaxgen.cli import inputs, reconstruct, runs
    from jaxgen.cli.progress import Reporter
    from jaxgen.plotting.pictures import masked, reconstructions

    settings = runs.Settings.of(options)
    generator = runs.load(options.model, "generator", "--model")
    height, width, channels = runs.image_shape(generator)
    models = [generator]
    if Path(options.image).is_dir():
        return _each(options, settings, models, (height, width, channels))
    picture = inputs.read_image(options.image, [(height, width)], channels, options.data_dir)
    mask = _mask(options, picture, (height, width))
    condition = reconstruct.pixel_condition(picture.image, mask, options.noise)
    target = runs.posterior(generator, reconstruct.add_class_term(options, condition, models))
    target.check()
    path = runs.out_folder(options, "inpaint")

    with Reporter(
        1, quiet=options.quiet, moves=settings.moves or 2, steps=settings.warmup + settings.steps
    ) as reporter:
        key = jax.random.key(settings.seed)
        done = runs.run(key, target, settings, reporter, "image", picture.name, path)
    task = reconstruct.Task(
        truth=picture.image if picture.mask is None else None,
        hidden=1 - mask,
        shown=masked(picture.image, mask),
        label=picture.name,
        note=options.mask or "transparent",
    )
    done, interval = reconstruct.judge(reconstruct.finish(done, task), target, condition)
    row = reconstruct.row(done, task, interval)
    data = runs.summary(
        "inpaint", vars(options), models, [done], observed_pixels=int(np.sum(mask > 0))
    )
    data = runs.save(
        path,
        data,
        [done],
        {"inpainting.png": reconstructions([row])},
        force=options.force,
        more={**reconstruct.arrays([done], [row]), "image/mask": mask},
    )
    runs.print_results(data, path, as_json=options.json)
    return 0


def _mask(options: Any, picture: Any, size: tuple[int, int]) -> Any:
    """1 where the image was seen: of --mask, and of the picture's transparency."""
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


def _each(options: Any, settings: Any, models: Any, shape: tuple[int, int, int]) -> int:
    """Every image of a folder by one program, each into a folder of its own."""
    from pathlib import Path

    import numpy as np

    from jaxgen.cli import inputs, many, reconstruct, runs
    from jaxgen.plotting.pictures import masked, reconstructions

    def read(path: str) -> tuple[Any, Any]:
        picture = inputs.read_image(path, [shape[:2]], shape[2])
        return picture, _mask(options, picture, shape[:2])

    if options.mask is not None:
        inputs.read_mask(options.mask, shape[:2])  # an error of its own, not one of the images
    paths = many.pictures_in(Path(options.image))
    read_ = many.read_all(paths, read)
    seen = [np.where(mask[..., None] > 0, p.image, 0.0).astype(np.float32) for p, mask in read_]
    data = (np.stack(seen), np.stack([np.asarray(mask, np.float32) for _, mask in read_]))
    condition = reconstruct.OfPixels(options.noise)
    make = reconstruct.posteriors(options, condition, models)
    path = runs.out_folder(options, "inpaint")
    folders = many.folder_names([picture.name for picture, _ in read_])
    items = [
        many.Item(f, p.name, i) for i, (f, (p, _)) in enumerate(zip(folders, read_, strict=True))
    ]

    def save(item: many.Item, done: runs.Finished) -> many.Saved:
        picture, mask = read_[item.number]
        observed = (data[0][item.number], data[1][item.number])
        task = reconstruct.Task(
            truth=picture.image if picture.mask is None else None,
            hidden=1 - mask,
            shown=masked(picture.image, mask),
            label=picture.name,
            note=options.mask or "transparent",
        )
        target = make(observed)
        return reconstruct.saved(
            done, task, target, condition(observed), "inpainting.png", mask=mask
        )

    def draw(entries: Any) -> dict[str, Any]:
        return {"inpainting.png": reconstructions(reconstruct.rows_of(entries))}

    failed = many.run(path, options, "inpaint", models, items, data, make, settings, save)
    return many.finish(path, options, "inpaint", models, items, failed, draw)
