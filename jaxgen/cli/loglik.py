"""`jaxgen loglik`: log likelihoods of images under a decoder, with error bars."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxgen.cli.options import Commands, Parser, add_output, positive, whole
from jaxgen.cli.words import LOGLIK, in_flags

if TYPE_CHECKING:  # `jaxgen --help` imports none of these
    from jaxgen.cli import runs

__all__ = ["add"]

_MOST_SHOWN = 12


def add(commands: Commands, name: str) -> None:
    """Add the command to a parser."""
    parser: Parser = commands.add_parser(
        name,
        help="log likelihoods of images under a decoder",
        description="Estimate log p(x) of every image by annealed importance sampling, from the "
        "decoder's own encoder where it has one. Estimates lie below the truth on average; "
        "--bdmc bounds by how much.",
        epilog="Example: jaxgen loglik fashion-mnist/vae test:0-49 --bdmc",
    )
    parser.add_argument("model", metavar="MODEL", help="generator: a name or a .safetensors file")
    parser.add_argument(
        "images",
        metavar="IMAGES",
        nargs="+",
        help="files (PNG, JPEG, npy), example:0-9, test:0-49, or images of an idx file: "
        "FILE-idx3-ubyte.gz:0-49",
    )
    group = parser.add_argument_group("model")
    group.add_argument(
        "--likelihood",
        choices=("bernoulli", "gaussian"),
        help="p(x | G(z)); by default what the model was trained with, else gaussian",
    )
    group.add_argument(
        "--sigma",
        type=positive,
        help="standard deviation of a gaussian p(x | G(z)), in pixel values from 0 to 1 "
        "(default: the model's own)",
    )
    group.add_argument(
        "--binarize",
        choices=("threshold", "random", "no"),
        default="threshold",
        help="how grey pixels become 0 or 1 for bernoulli: at 1/2, at random with the grey "
        "level as probability, or not at all (%(default)s)",
    )
    group.add_argument(
        "--encoder",
        default="auto",
        metavar="NAME",
        help="start at its q(z | x): auto (MODEL-encoder, if there is one), none, or a name",
    )
    group = parser.add_argument_group("sampler")
    group.add_argument(
        "--chains",
        type=whole(2, 100_000),
        default=16,
        help="chains for each image (default: %(default)s)",
    )
    group.add_argument(
        "--temperatures",
        type=whole(1, 1_000_000),
        help="number of inverse temperatures (default: 200 with an encoder, else 1000)",
    )
    group.add_argument(
        "--leapfrogs",
        type=whole(1, 10_000),
        default=10,
        help="leapfrog steps at each temperature (default: %(default)s)",
    )
    group.add_argument(
        "--bdmc",
        nargs="?",
        type=whole(2, 10_000),
        const=16,
        default=0,
        metavar="N",
        help="draw N images (16) from the model and bound their log p(x) from both sides with "
        "the same settings",
    )
    group.add_argument(
        "--batch",
        type=whole(1),
        default=64,
        help="images in one compiled program (default: %(default)s)",
    )
    group.add_argument(
        "--seed",
        type=whole(0, 2**32 - 1),
        default=0,
        help="integer that fixes all random numbers (default: %(default)s)",
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="folder of the four Fashion-MNIST files, for test:N"
    )
    add_output(parser, "loglik", resumable=False)
    parser.set_defaults(run=_run)


def _run(options: Namespace) -> int:
    import time

    import jax
    import numpy as np

    import jaxgen
    from jaxgen.cli import runs
    from jaxgen.inference.loglik import loglik
    from jaxgen.kernels import HMC
    from jaxgen.report import output_folder
    from jaxgen.tempering import betas as schedules

    generator = runs.load(options.model, "generator", "MODEL")
    shape = runs.image_shape(generator)
    observation = _observation(options, generator.info.metadata)
    encoder = _encoder(options, generator)
    names, images = _read(options.images, shape, options.data_dir)
    key, key_binary = jax.random.split(jax.random.key(options.seed))
    if observation.discrete:
        images = _binary(key_binary, images, options.binarize)
    path = runs.out_folder(options, "loglik")
    count = options.temperatures or (1000 if encoder is None else 200)
    betas = schedules.sigmoid(count) if encoder is None else schedules.linear(count)

    begun = time.monotonic()
    result = loglik(
        key,
        generator.network,
        images,
        observation,
        prior=jaxgen.Gaussian.standard(generator.info.input_shape),
        encoder=None if encoder is None else encoder.network,
        kernel=HMC(options.leapfrogs),
        betas=betas,
        num_chains=options.chains,
        check=options.bdmc,
        batch=options.batch,
        progress=None if options.quiet else _progress(),
    )
    models = [generator] if encoder is None else [generator, encoder]
    rows = [
        {"image": name, "log_prob": value, "standard_error": error, "ess": ess}
        for name, value, error, ess in zip(
            names, result.log_prob, result.standard_error, result.ess, strict=True
        )
    ]
    checked = result.check
    data = {
        **runs.summary("loglik", vars(options), models, []),
        "likelihood": "bernoulli" if observation.discrete else "gaussian",
        "sigma": None if observation.discrete else float(observation.noise),
        "images": rows,
        "num_images": len(rows),
        "mean": result.mean,
        "mean_standard_error": result.mean_standard_error,
        "estimation_error": result.estimation_error,
        "bits_per_dimension": result.bits_per_dimension,
        "bdmc": None
        if checked is None
        else {
            "pairs": len(checked.lower),
            "lower": float(checked.lower.mean()),
            "upper": float(checked.upper.mean()),
            "gap": result.gap,
            "gap_standard_error": result.gap_standard_error,
        },
        "temperatures": count,
        "exactness": result.exactness,
        "gradients_per_chain": result.num_gradients,
        "gradients": int(result.num_gradients * options.chains * len(rows)),
        "notes": list(result.notes),
        "seconds": round(time.monotonic() - begun, 2),
        "files": ["loglik.safetensors", "summary.json"],
    }
    arrays = {
        "image": images,
        "log_prob": result.log_prob,
        "standard_error": result.standard_error,
        "log_weight": result.evidence.log_weight,
        "position": result.evidence.position,
    }
    if checked is not None:
        arrays |= {f"bdmc/{k}": getattr(checked, k) for k in ("lower", "upper", "images")}
    shapes = "position [images, chains, ...], log_weight [images, chains]"
    with output_folder.writing(path, force=options.force) as place:
        floats = {k: np.asarray(v, np.float32) for k, v in arrays.items()}
        output_folder.write_arrays(place / "loglik.safetensors", floats, {"arrays": shapes})
        output_folder.write_json(place / "summary.json", data)
    _print(data, path, options.json)
    return 0


def _observation(options: Namespace, metadata: dict[str, Any]) -> Any:
    from jaxgen.core.errors import expected
    from jaxgen.target.observations import BernoulliObservation, GaussianObservation

    likelihood = options.likelihood or metadata.get("likelihood", "gaussian")
    if likelihood == "bernoulli":
        if options.sigma is not None:
            hint = "Add --likelihood gaussian, or leave --sigma out"
            raise expected("--sigma", "a gaussian likelihood", "bernoulli", hint)
        return BernoulliObservation()
    sigma = metadata.get("sigma") if options.sigma is None else options.sigma
    if sigma is None:
        raise expected("--sigma", "a standard deviation, as the model has none of its own", "none")
    return GaussianObservation(float(sigma))


def _encoder(options: Namespace, generator: runs.Model) -> Any:
    from jaxgen.cli import runs
    from jaxgen.core.errors import expected
    from jaxgen.models.registry import available

    name = options.encoder
    if name == "none":
        return None
    if name == "auto":
        name = f"{options.model}-encoder"
        if name not in available():
            return None
    encoder = runs.load(name, "encoder", "--encoder")
    wanted = (2, *generator.info.input_shape)
    if encoder.info.output_shape != wanted or (
        encoder.info.input_shape != generator.info.output_shape
    ):
        got = f"{name}: {list(encoder.info.input_shape)} to {list(encoder.info.output_shape)}"
        raise expected("--encoder", f"one of this decoder, to {list(wanted)}", got)
    return encoder


def _read(texts: list[str], shape: tuple[int, int, int], data_dir: str | None) -> Any:
    """Names and images `[N, H, W, channels]` of what the command line lists."""
    import numpy as np

    from jaxgen.cli import inputs
    from jaxgen.core.errors import expected

    names, images = [], []
    for text in texts:
        for one in _expand(text):
            if isinstance(one, str):
                picture = inputs.read_image(one, [shape[:2]], shape[2], data_dir)
                if picture.mask is not None:
                    raise expected("IMAGES", "opaque pictures", f"{one}, with transparency")
                names.append(picture.name)
                images.append(picture.image)
                continue
            file, index, pixels = one
            if (*pixels.shape, 1) != shape:
                raise expected("IMAGES", f"shape {list(shape)}", f"{file}: {list(pixels.shape)}")
            names.append(f"{file} {index}")
            images.append(pixels[..., None].astype(np.float32) / 255.0)
    return names, np.stack(images).astype(np.float32)


def _expand(text: str) -> Any:
    """One word of the command line as texts for `read_image`, or images of an idx file."""
    from jaxgen.core.errors import expected
    from jaxgen.data import read_idx

    head, _, tail = text.rpartition(":")
    span = re.fullmatch(r"(\d+)(?:-(\d+))?", tail)
    if not head or Path(text).exists() or ("ubyte" not in head and head not in ("test", "example")):
        return [text]
    if span is None:
        raise expected("IMAGES", "a number or a range, as in test:0-49", repr(text))
    first, last = int(span[1]), int(span[2] or span[1])
    if last < first or last - first >= 100_000:
        raise expected("IMAGES", "a range that increases, of at most 100000", repr(text))
    if head in ("test", "example"):
        return [f"{head}:{i}" for i in range(first, last + 1)]
    if not Path(head).is_file():
        raise expected("IMAGES", "a file that exists", head)
    images = read_idx(head)
    if images.ndim != 3 or last >= len(images):
        raise expected("IMAGES", f"{head}:0 to {len(images) - 1}", text)
    name = Path(head).name
    return [(name, i, images[i]) for i in range(first, last + 1)]


def _binary(key: Any, images: Any, how: str) -> Any:
    import jax
    import numpy as np

    if how == "no":
        return images
    if how == "threshold":
        return (images >= 0.5).astype(np.float32)
    # At random a black pixel stays black and a white one white.
    return (images > np.asarray(jax.random.uniform(key, images.shape))).astype(np.float32)


def _progress() -> Any:
    import sys

    shown = [-1]

    def tell(done: int, total: int) -> None:
        tenth = 10 * done // total
        if tenth > shown[0]:
            shown[0] = tenth
            print(f"annealing {10 * tenth}%", file=sys.stderr, flush=True)

    return tell


def _print(data: dict[str, Any], path: Path, as_json: bool) -> None:
    import json

    from jaxgen.report import output_folder

    if as_json:
        print(json.dumps(output_folder.plain({**data, "folder": path}), indent=2, allow_nan=False))
        return
    rows = data["images"]
    for row in rows[:_MOST_SHOWN]:
        print(
            f"{row['image']:>24}  log p(x) {row['log_prob']:10.2f} ± {row['standard_error']:.2f}"
            f"  ESS {row['ess']:.1f}"
        )
    if len(rows) > _MOST_SHOWN:
        print(f"{'...':>24}  and {len(rows) - _MOST_SHOWN} more, in summary.json")
    spread = data["mean_standard_error"]
    over = f" ± {spread:.2f} (over images)" if len(rows) > 1 else ""
    print(
        f"mean of {len(rows)}: {data['mean']:.2f}{over}, ± {data['estimation_error']:.3f} "
        f"(estimation) nats; {data['bits_per_dimension']:.4f} bits per dimension"
    )
    check = data["bdmc"]
    if check:
        print(
            f"bounds on {check['pairs']} images of the model's own: {check['lower']:.2f} to "
            f"{check['upper']:.2f}, gap {check['gap']:.3f} ± {check['gap_standard_error']:.3f}"
        )
    for note in data["notes"]:
        print(f"note: {in_flags(note, LOGLIK)}")
    print(f"{data['gradients']:,} gradients, {data['seconds']:.1f} s\n{path}")
