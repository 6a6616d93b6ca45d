"""TensorFlow.js weights: manifests with uint8, uint16 and float16 quantisation, and ProGAN.

A manifest is JSON: groups of `{"paths": [...], "weights": [{"name", "shape", "dtype",
"quantization"}]}`; the files named in `paths`, one after another, hold the tensors of the group.
A quantised value q stands for `q * scale + min`. `progan_celeba128` comes as an npz of the
graph's tensors, `/` in their names written as `|`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from jaxgen.core.errors import InputError, expected
from jaxgen.models.ported import PORTED, build, leaves
from jaxgen.models.weights import fill
from weights_convert.archives import read_npz
from weights_convert.report import plain
from weights_convert.rules import Rule, apply_rules
from weights_convert.sniff import refuse, sniff
from weights_convert.writing import destination, write_new

__all__ = ["NETWORKS", "add_arguments", "convert_tfjs", "read_manifest", "read_npz", "run"]

_MAX_JSON = 4 * 1024 * 1024
_MAX_BYTES = 512 * 1024**2  # of all shards, of all tensors; the largest known has 92 MB
_MAX_TENSORS = 20_000
_DTYPES = {"float32": "<f4", "int32": "<i4", "uint8": "u1", "bool": "?"}
_STORED = {"uint8": "u1", "uint16": "<u2", "float16": "<f2"}


def read_manifest(path: str | Path) -> dict[str, np.ndarray]:
    """Return the tensors of a weights manifest or of a `model.json` that holds one, dequantised.

    Raises:
      InputError: naming the file and the tensor; nothing outside the manifest's folder is
        opened, and no memory is taken before sizes are found to agree.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a manifest; there is no such file")
    kind = sniff(path)
    if kind is not None and kind.name not in ("a TensorFlow.js manifest", "a JSON document"):
        raise expected(str(path), "a manifest of TensorFlow.js", kind.name, f"{kind.hint}.")
    if path.stat().st_size > _MAX_JSON:
        raise InputError(f"{path}: a manifest of more than {_MAX_JSON} bytes")
    try:
        groups = json.loads(path.read_text("utf-8"))
        groups = groups["weightsManifest"] if isinstance(groups, dict) else groups
        plans = [
            (_listed(group["paths"]), [_entry(entry) for entry in _listed(group["weights"])])
            for group in _listed(groups)
        ]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError,
            RecursionError) as error:  # fmt: skip
        raise InputError(f"{path}: damaged manifest: {str(error)[:200]}") from None
    _check_volume(path, plans)
    tensors: dict[str, np.ndarray] = {}
    for names, entries in plans:
        data = _shards(path, names)
        at = 0
        for name, shape, stored, scale, low, dtype in entries:
            length = math.prod(shape) * stored.itemsize
            if at + length > len(data):
                raise InputError(
                    f"{path}: {name[:80]!r}: {length} bytes at offset {at} of {len(data)}"
                )
            if name in tensors:
                raise InputError(f"{path}: {name[:80]!r} occurs twice")
            raw = np.frombuffer(data, stored, math.prod(shape), at).reshape(shape)
            at += length
            if scale is None:
                tensors[name] = raw.astype(dtype, copy=False)
                continue
            with np.errstate(over="ignore", invalid="ignore"):  # infinite weights are refused later
                tensors[name] = (raw * np.float32(scale) + np.float32(low)).astype(dtype)
        if at != len(data):
            raise InputError(f"{path}: {len(data) - at} bytes are left over in {names[:8]}")
    return tensors


def _check_volume(path: Path, plans: Sequence[tuple[Any, Sequence[tuple[Any, ...]]]]) -> None:
    """Before anything is read: each shard once, and neither they nor the tensors too large."""
    names = [name for group, _ in plans for name in (group if isinstance(group, list) else [group])]
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise InputError(f"{path}: shard {str(name)[:80]!r}: expected a plain file name")
    if len(set(names)) != len(names):
        raise InputError(f"{path}: a shard is named more than once")
    sizes = [
        (path.parent / name).stat().st_size for name in names if (path.parent / name).is_file()
    ]
    entries = [entry for _, group in plans for entry in group]
    made = sum(math.prod(shape) * dtype.itemsize for _, shape, _, _, _, dtype in entries)
    if len(entries) > _MAX_TENSORS or sum(sizes) > _MAX_BYTES or made > _MAX_BYTES:
        raise InputError(
            f"{path}: {len(entries)} tensors of {made} bytes in shards of {sum(sizes)}; the "
            f"limits are {_MAX_TENSORS} and {_MAX_BYTES}"
        )


@dataclass(frozen=True)
class TFJSNetwork:
    """A network that is published for TensorFlow.js.

    Attributes:
      architecture: in `jaxgen.models.ported.PORTED`.
      config: its configuration.
      read: how its file is read.
      rules: the recipe.
      ignore: keys to leave over.
      metadata: what else to record.
    """

    architecture: str
    config: dict[str, Any]
    read: Callable[[Path], dict[str, np.ndarray]]
    rules: Sequence[Rule]
    ignore: Sequence[str]
    metadata: Mapping[str, Any]


def convert_tfjs(
    source: str | Path, network: str, out: str | Path | None = None, *, force: bool = False
) -> tuple[nnx.Module, dict[str, Any]]:
    """Convert one of `NETWORKS`.

    Args:
      source: the manifest (its shards beside it), or ProGAN's npz.
      network: a name in `NETWORKS`.
      out: the safetensors file to write; None writes none. Never one that is read.
      force: whether `out` may be replaced if it exists.

    Returns:
      The network and its metadata.

    Raises:
      InputError: for a bad file, or one of another network, with every mistake.
    """
    if network not in NETWORKS:
        raise expected("network", f"one of {', '.join(NETWORKS)}", repr(network))
    source = Path(source)
    if not source.is_file():
        if source.is_dir() and (other := refuse(source, "a TensorFlow.js model")) is not None:
            raise other
        raise InputError(f"{source}: no such file")
    if out is not None:
        destination(out, sources=_read_files(source), force=force)
    plan = NETWORKS[network]
    module = build(plan.architecture, plan.config)
    arrays = apply_rules(
        plan.rules, plan.read(source), leaves(module), ignore=plan.ignore, where=str(source)
    )
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    metadata = {
        "architecture": {"name": plan.architecture, "config": plan.config},
        "kind": PORTED[plan.architecture].kind,
        "recipe": network,
        "converter": "weights_convert.tfjs 1",
        "source": {"file": source.name, "sha256": digest, "licence": plan.metadata["licence"]},
        **plan.metadata,
    }
    if out is not None:
        write_new(out, arrays, metadata, sources=_read_files(source), force=force)
    return fill(module, arrays, str(source)), metadata


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `python -m weights_convert tfjs`."""
    parser.add_argument("file", help="the weights manifest, or the npz of ProGAN's tensors")
    parser.add_argument("--network", required=True, help=f"one of {', '.join(NETWORKS)}")
    parser.add_argument("--out", required=True, help="the safetensors file to write")
    parser.add_argument("--force", action="store_true", help="overwrite the output if it exists")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; the exit status. InputError is for the caller to print."""
    module, metadata = convert_tfjs(args.file, args.network, args.out, force=args.force)
    count = sum(math.prod(shape) for shape in leaves(module).values())
    print(f"{plain(args.file)}: {metadata['architecture']['name']}, {count:,} numbers")
    print(f"wrote {plain(args.out)}")
    return 0


# Inside ------------------------------------------------------------------------------


def _read_files(source: Path) -> list[Path]:
    """Return the file and, of a manifest, its shards."""
    if source.suffix == ".npz" or source.stat().st_size > _MAX_JSON:
        return [source]
    try:
        groups = json.loads(source.read_text("utf-8"))
        groups = groups["weightsManifest"] if isinstance(groups, dict) else groups
        return [source, *(source.parent / str(p) for group in groups for p in group["paths"])]
    except (ValueError, KeyError, TypeError, RecursionError):
        return [source]  # the reader will say what is wrong


def _listed(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"a {type(value).__name__} where a list is expected")
    return value


def _entry(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """(name, shape, stored dtype, scale, min, dtype) of one tensor of a manifest."""
    shape = tuple(entry["shape"])
    if not all(type(n) is int and 0 <= n < 2**31 for n in shape) or len(shape) > 8:
        raise ValueError(f"shape {shape[:8]}")
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    quantised = entry.get("quantization")
    if quantised is None:
        return str(entry["name"]), shape, dtype, None, None, dtype
    stored = np.dtype(_STORED[quantised["dtype"]])
    scale, low = float(quantised.get("scale", 1.0)), float(quantised.get("min", 0.0))
    return str(entry["name"]), shape, stored, scale, low, dtype


def _shards(path: Path, names: Sequence[str]) -> bytes:
    parts = []
    for name in names:
        shard = path.parent / name
        if not shard.is_file():
            raise InputError(f"{path}: shard {shard} is missing")
        parts.append(shard.read_bytes())
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _full_conv_to_dense(kernel: np.ndarray) -> np.ndarray:
    """(4, 4, I, O), a convolution of one pixel amid zeros, to the matrix (I, 4*4*O)."""
    return kernel[::-1, ::-1].transpose(2, 0, 1, 3).reshape(kernel.shape[2], -1)


def _tiled(bias: np.ndarray) -> np.ndarray:
    """One bias for each channel, for each of 4 x 4 pixels."""
    return np.tile(bias, 16)


def _depthwise(kernel: np.ndarray) -> np.ndarray:
    """(kh, kw, C, 1) to (kh, kw, 1, C)."""
    return kernel.transpose(0, 1, 3, 2)


def _progan_rules() -> list[Rule]:
    conv, bias = "module_apply_default/Conv2D{}/merged_input", "module/g_model/res_{}/conv{}/bias"
    rules = [
        Rule(conv.format(""), "dense.kernel", _full_conv_to_dense),
        Rule(bias.format(0, 0), "dense.bias", _tiled),
        Rule(conv.format("_1"), "conv.kernel"),
        Rule(bias.format(0, 1), "conv.bias"),
        Rule(conv.format("_12"), "rgb.kernel"),
        Rule("module_apply_default/add_26", "rgb.bias"),
    ]
    for i in range(5):
        for j in range(2):
            rules.append(Rule(conv.format(f"_{2 * i + j + 2}"), f"blocks.{i}.conv{j}.kernel"))
            rules.append(Rule(bias.format(i + 1, j), f"blocks.{i}.conv{j}.bias"))
    return [rule._replace(source=re.escape(rule.source)) for rule in rules]


def _separable(source: str, target: str) -> list[Rule]:
    return [
        Rule(f"{source}/depthwise_filter", rf"{target}.depthwise.kernel", _depthwise),
        Rule(f"{source}/pointwise_filter", rf"{target}.pointwise.kernel"),
        Rule(f"{source}/bias", rf"{target}.pointwise.bias"),
    ]


_EXPRESSION = [
    Rule("dense0/conv0/filters", "dense0.conv0.kernel"),
    Rule("dense0/conv0/bias", "dense0.conv0.bias"),
    *_separable(r"(dense\d)/(conv[123])", r"\1.\2"),
    *_separable(r"(dense[123])/(conv0)", r"\1.\2"),
    Rule("fc/weights", "fc.kernel"),
    Rule("fc/bias", "fc.bias"),
]

_REDUCTION = r"entry_flow/reduction_block_(\d)"
_AGE_GENDER = [
    Rule("entry_flow/conv_in/filters", "conv_in.kernel"),
    Rule("entry_flow/conv_in/bias", "conv_in.bias"),
    *_separable(_REDUCTION + r"/separable_conv(\d)", r"reduction\1.conv\2"),
    Rule(_REDUCTION + "/expansion_conv/filters", r"reduction\1.expansion.kernel"),
    Rule(_REDUCTION + "/expansion_conv/bias", r"reduction\1.expansion.bias"),
    *_separable(r"middle_flow/main_block_(\d)/separable_conv(\d)", r"main.\1.conv\2"),
    *_separable(r"exit_flow/reduction_block/separable_conv(\d)", r"reduction2.conv\1"),
    Rule("exit_flow/reduction_block/expansion_conv/filters", "reduction2.expansion.kernel"),
    Rule("exit_flow/reduction_block/expansion_conv/bias", "reduction2.expansion.bias"),
    *_separable("exit_flow/separable_conv", "conv_out"),
    Rule(r"fc/(age|gender)/weights", r"\1.kernel"),
    Rule(r"fc/(age|gender)/bias", r"\1.bias"),
]

_FACE = "RGB face crop 112 x 112 in [0, 1]; the network subtracts the mean colour"

NETWORKS: dict[str, TFJSNetwork] = {
    # The published graph gives y = rgb in [0, 1] with a spread twice too wide, and clips it;
    # y - 0.5 is the image in [-1, 1], so in [0, 1] it is 0.5 * rgb + 0.25, unclipped.
    "progan-celeba128": TFJSNetwork(
        architecture="progan.ProGAN",
        config={"latent": 512, "channels": [512, 512, 512, 512, 256, 128], "gain": 0.5,
                "shift": 0.25},
        read=lambda path: read_npz(path) if path.suffix == ".npz" else read_manifest(path),
        rules=_progan_rules(),
        ignore=[
            r"module_apply_default/(LeakyRelu|Mean|add|Tile|Reshape|Pad|BatchToSpaceND"
            r"|clip_by_value)(_\d+)?/.*"
        ],
        metadata={
            "licence": "ISC (npm package); TF-Hub progan-128",
            "preprocessing": "latent standard normal, 512; image = 0.5 * rgb + 0.25, not clipped",
        },
    ),
    "face-expression": TFJSNetwork(
        "faceapi.FaceExpression", {}, lambda path: read_manifest(path), _EXPRESSION, (),
        {"licence": "MIT", "preprocessing": _FACE,
         "classes": ["neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised"]},
    ),
    "face-age-gender": TFJSNetwork(
        "faceapi.FaceAgeGender", {}, lambda path: read_manifest(path), _AGE_GENDER, (),
        {"licence": "MIT", "preprocessing": _FACE,
         "classes": ["age in years", "logit of male", "logit of female"]},
    ),
}  # fmt: skip
