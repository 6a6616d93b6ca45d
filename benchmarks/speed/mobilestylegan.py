"""How long do an image and a gradient of MobileStyleGAN take, at each of its sizes?

Forward and gradient of sum(image^2) for one latent, compiled, per size of the image; OpenVINO's
forward pass of the original synthesis network (at 1024 px, and cut at the tensors that the
smaller images are made of), if it is installed and `--wheel` names the package's file; and
ProGAN at 128 px, if it was fetched. Times are medians of interleaved rounds in one process, in
milliseconds. `--draws FILE.png` also writes 16 draws. `--smoke` takes the smallest size and one
round.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common

import jaxgen

NAME = "mobilestylegan-ffhq"
SIZES = {1024: NAME, **{size: f"{NAME}/{size}" for size in (512, 256, 128, 32, 16)}}
# The original's tensors that images of a size are made of.
CUTS = {1024: "img", 512: "Slice_764/Split", 256: "LeakyRelu_642", 128: "LeakyRelu_542"}


def main() -> None:
    """Parse the command line, measure, print one line of JSON."""
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wheel", help="the package random-face, for OpenVINO's forward passes")
    parser.add_argument("--draws", help="write 16 draws as a picture")
    args = parser.parse_args()
    sizes = [128] if args.smoke else list(SIZES)
    runs: dict[str, Callable[[], Any]] = {}
    for size in sizes:
        runs |= timed(str(size), jaxgen.load(SIZES[size]), 512)
    if "progan-celeba128" in fetched():
        runs |= timed("progan 128", jaxgen.load("progan-celeba128"), 512)
    if args.wheel:
        runs |= openvino_runs(Path(args.wheel), [size for size in sizes if size in CUTS])
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(1 if args.smoke else args.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    medians = {name: round(statistics.median(found), 1) for name, found in times.items()}
    ratios = {
        f"gradient {size} over progan 128": round(
            medians[f"{size} gradient"] / medians["progan 128 gradient"], 3
        )
        for size in sizes
        if "progan 128 gradient" in medians
    }
    if args.draws:
        draw(args.draws, sizes[0], args.seed)
    info = jaxgen.models.describe(NAME)
    common.report("mobilestylegan", milliseconds=medians, ratios=ratios,
                  readouts=info.metadata["figures"])  # fmt: skip


def fetched() -> list[str]:
    """Which of the published networks are in the cache."""
    from jaxgen.models.fetched import FETCHABLE, cached

    return [name for name in FETCHABLE if cached(name).is_file()]


def timed(title: str, network: Any, latent: int) -> dict[str, Callable[[], Any]]:
    """Return a forward pass and a gradient of one latent, ready to run."""
    z = jax.random.normal(jax.random.key(0), (latent,))
    forward = jax.jit(lambda network, z: network(z))
    gradient = jax.jit(jax.grad(lambda z, network: jnp.sum(jnp.square(network(z)))))
    return {
        f"{title} forward": lambda: forward(network, z).block_until_ready(),
        f"{title} gradient": lambda: gradient(z, network).block_until_ready(),
    }


def openvino_runs(wheel: Path, sizes: list[int]) -> dict[str, Callable[[], Any]]:
    """OpenVINO's forward passes of the original, from the package's file."""
    import openvino

    core = openvino.Core()
    runs: dict[str, Callable[[], Any]] = {}
    w = np.random.default_rng(0).normal(size=(1, 512)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        for kind in ("xml", "bin"):
            member = f"random_face/data/SynthesisNetwork.{kind}"
            (Path(folder) / f"net.{kind}").write_bytes(archive.read(member))
        for size in sizes:
            model = core.read_model(str(Path(folder) / "net.xml"))
            node = next(n for n in model.get_ops() if n.friendly_name == CUTS[size])
            cut = openvino.Model([node.output(0)], model.get_parameters(), "cut")
            compiled = core.compile_model(cut, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            runs[f"{size} openvino forward"] = lambda run=compiled: run([w])
    return runs


def draw(path: str, size: int, seed: int) -> None:
    """Sixteen draws at 256 px each, reduced by means of blocks."""
    from PIL import Image

    network = jaxgen.load(SIZES[size])
    forward = jax.jit(lambda network, z: network(z))
    keys = jax.random.split(jax.random.key(seed + 5), 16)
    rows = []
    for key in keys:
        image = np.asarray(forward(network, jax.random.normal(key, (512,))))
        block = max(size // 256, 1)
        side = size // block
        rows.append(image.reshape(side, block, side, block, 3).mean((1, 3)))
    grid = np.concatenate([np.concatenate(rows[i : i + 4], 1) for i in range(0, 16, 4)])
    Image.fromarray(np.uint8(255 * np.clip(grid, 0, 1) + 0.5)).save(path)


if __name__ == "__main__":
    main()
