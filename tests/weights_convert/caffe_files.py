"""Small Caffe files for tests, written by the protobuf library itself."""

import os
from pathlib import Path

import numpy as np
import pytest

from weights_convert.caffe import read_prototxt
from weights_convert.caffe.random_blobs import random_blobs
from weights_convert.caffe.schema import message_class
from weights_convert.caffe.wiring import wire_up

WEIGHTS = Path(
    os.environ.get(
        "JAXGEN_TEST_WEIGHTS", Path(__file__).resolve().parents[2].parent / "shared" / "weights"
    )
)


def weights(*parts: str) -> Path:
    """A file among the real weights; skips the test where there is none."""
    path = WEIGHTS.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no real weights: {path} is missing (set JAXGEN_TEST_WEIGHTS)")
    return path


def opencv():
    """OpenCV with its Caffe importer; skips the test where there is none."""
    cv2 = pytest.importorskip("cv2", reason="needs opencv-python-headless<5, the judge")
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("this OpenCV has no Caffe importer; needs opencv-python-headless<5")
    return cv2


def net_text(inputs: dict[str, tuple[int, ...]], *layers: str) -> str:
    """A prototxt: inputs by name, and the insides of layer blocks."""
    head = "".join(
        f'input: "{name}" input_shape {{ {" ".join(f"dim: {n}" for n in shape)} }}\n'
        for name, shape in inputs.items()
    )
    return 'name: "net"\n' + head + "".join(f"layer {{ {layer} }}\n" for layer in layers)


def write_net(folder: Path, text: str, blobs=None, seed: int = 0) -> tuple[Path, Path | None]:
    """Write a prototxt and a caffemodel with given or random blobs; None if there are none."""
    prototxt, caffemodel = folder / "net.prototxt", folder / "net.caffemodel"
    prototxt.write_text(text)
    if blobs is None:
        blobs = random_blobs(wire_up(read_prototxt(prototxt)).plans, seed)
    if not blobs:
        return prototxt, None
    caffemodel.write_bytes(encode(blobs))
    return prototxt, caffemodel


def encode(blobs, kind: str = "float", v1: bool = False, legacy: bool = False) -> bytes:
    """A caffemodel, encoded by protobuf: layer -> arrays."""
    net = message_class("NetParameter")(name="net")
    for layer, arrays in blobs.items():
        entry = (net.layers if v1 else net.layer).add(name=layer)
        for array in arrays:
            fill(entry.blobs.add(), np.asarray(array), kind, legacy)
    return net.SerializeToString()


def fill(blob, array, kind: str = "float", legacy: bool = False) -> None:
    """Put an array into a BlobProto as float, double or half numbers."""
    if legacy:
        padded = (1,) * (4 - array.ndim) + array.shape
        blob.num, blob.channels, blob.height, blob.width = padded
    else:
        blob.shape.dim.extend(array.shape)
    if kind == "double":
        blob.double_data.extend(array.ravel().astype(float).tolist())
    elif kind == "half":
        blob.raw_data_type, blob.raw_data = 2, array.astype("<f2").tobytes()
    else:
        blob.data.extend(array.ravel().tolist())
