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
        "annealed. Without --mask, transparent pixels are hidden.",
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
    import jax
    import numpy as np

    from jaxgen.cli import inputs, reconstruct, runs
    from jaxgen.cli.progress import Reporter
    from jaxgen.core.errors import expected
    from jaxgen.plotting.pictures import masked, reconstructions

    settings = runs.Settings.of(options)
    generator = runs.load(options.model, "generator", "--model")
    height, width, channels = runs.image_shape(generator)
    picture = inputs.read_image(options.image, [(height, width)], channels, options.data_dir)
    if options.mask is not None:
        mask = inputs.read_mask(options.mask, (height, width))
        if picture.mask is not None:  # what is transparent was never seen
            mask = mask * picture.mask
    elif picture.mask is not None:
        mask = picture.mask
    else:
        hint = "As in --mask lower-half or --mask box:8,8,12,12"
        raise expected("--mask", "a mask for an image without transparency", "none", hint)
    models = [generator]
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
