"""Is the Caffe conversion right, fast, frugal and safe?

    python benchmarks/conversion/convert_caffe.py {accuracy,parity,size,fuzz} [--smoke]

accuracy: networks that other people trained, on MNIST, CIFAR-10 and ImageNet images, and
          how often they agree with OpenCV's Caffe importer.
parity:   full-size definitions with random weights: the worst relative error of any layer
          against OpenCV's importer.
size:     seconds and peak memory to convert and write a caffemodel of 244 MB.
fuzz:     damaged files against every reader: each must be read or refused with InputError.

Prints one line of JSON. Real weights come from JAXGEN_TEST_WEIGHTS, by default from
../shared/weights beside the checkout.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxgen.core.errors import InputError
from jaxgen.models.caffe.graph import Graph
from weights_convert import caffe, parity
from weights_convert.caffe.random_blobs import random_blobs, write_caffemodel
from weights_convert.caffe.wiring import wire_up

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = Path(os.environ.get("JAXGEN_TEST_WEIGHTS", ROOT.parent / "shared" / "weights"))
DEFINITIONS = {
    "AlexNet": "bvlc_alexnet.deploy.prototxt",
    "CaffeNet": "bvlc_reference_caffenet.deploy.prototxt",
    "GoogLeNet": "bvlc_googlenet.deploy.prototxt",
    "fc6 generator": "ppgn_generator.prototxt",
    "PPGN CaffeNet": "ppgn_caffenet.prototxt",
}


def accuracy(smoke: bool) -> dict[str, Any]:
    """Accuracies of real networks and agreement with OpenCV."""
    import cv2
    from PIL import Image

    result: dict[str, Any] = {}
    count = 200 if smoke else 10_000

    raw = gzip.decompress((WEIGHTS / "images/mnist_t10k-images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28, 1)[:count]
    raw = gzip.decompress((WEIGHTS / "images/mnist_t10k-labels-idx1-ubyte.gz").read_bytes())
    labels = np.frombuffer(raw, np.uint8, offset=8)[:count]
    folder = WEIGHTS / "caffe_lenet_mnist"
    files = folder / "lenet.prototxt", folder / "lenet_iter_10000.caffemodel"
    blob = images.transpose(0, 3, 1, 2) / np.float32(256)
    result["LeNet, MNIST"] = _agreement(cv2, files, caffe.PRESETS["lenet"], images, blob, labels, 1)

    with np.load(WEIGHTS / "images/cifar10_test_first2000.npz") as file:
        images, labels = file["x"][:count], file["y"][:count]
    folder = WEIGHTS / "caffe_cifar10_quick"
    files = folder / "cifar10_quick.prototxt", folder / "cifar10_quick_iter_5000.caffemodel"
    mean = caffe.read_binaryproto(folder / "mean.binaryproto")
    blob = images.transpose(0, 3, 1, 2) - mean[None]
    result["cifar10_quick, CIFAR-10"] = _agreement(
        cv2, files, caffe.Preprocessing("rgb", mean), images, blob, labels, 1
    )

    paths = sorted((WEIGHTS / "images/imagenet").glob("*.JPEG"))[: 4 if smoke else None]
    images = np.stack([
        np.asarray(Image.open(p).convert("RGB").resize((256, 256)))[14:241, 14:241] for p in paths
    ])  # fmt: skip
    labels = np.array([int(p.name[:3]) for p in paths])
    folder = WEIGHTS / "caffe_squeezenet_imagenet"
    files = folder / "deploy.prototxt", folder / "squeezenet_v1.0.caffemodel"
    blob = (images[..., ::-1] - np.float32([104, 117, 123])).transpose(0, 3, 1, 2)
    result["SqueezeNet, ImageNet, top 5"] = _agreement(
        cv2, files, caffe.PRESETS["imagenet"], images, blob, labels, 5
    )
    return result


def _agreement(cv2, files, preprocessing, images, blob, labels, top) -> dict[str, Any]:
    network = caffe.convert(*files, preprocessing=preprocessing).network
    run = jax.jit(jax.vmap(network))
    step = 500 if images.shape[1] < 64 else 1
    ours = np.concatenate([
        np.asarray(run(images[i : i + step] / np.float32(255)))
        for i in range(0, len(images), step)
    ])  # fmt: skip
    net = cv2.dnn.readNetFromCaffe(*map(str, files))
    net.setInput(np.ascontiguousarray(blob, np.float32))
    judge = np.asarray(net.forward()).reshape(len(images), -1)
    best, judged = np.argsort(-ours, 1)[:, :top], np.argsort(-judge, 1)[:, :top]
    return {
        "images": len(images),
        "right": int(np.sum(best == labels[:, None])),
        "right by OpenCV": int(np.sum(judged == labels[:, None])),
        "same predictions": int(np.sum(np.all(best == judged, axis=1))),
    }


def layer_parity(smoke: bool) -> dict[str, Any]:
    """Return the worst layer of each definition."""
    result: dict[str, Any] = {}
    chosen = {"GoogLeNet": DEFINITIONS["GoogLeNet"]} if smoke else DEFINITIONS
    for name, file in chosen.items():
        with tempfile.TemporaryDirectory() as folder:
            files = WEIGHTS / "caffe_definitions" / file, Path(folder) / "random.caffemodel"
            plans = wire_up(caffe.read_prototxt(files[0])).plans
            write_caffemodel(files[1], random_blobs(plans))
            graph = caffe.convert(*files).graph
            inputs = parity.random_inputs(graph)
            blobs = {n: parity.to_blob(x) for n, x in zip(graph.input_names, inputs, strict=True)}
            judge = parity.opencv_activations(*files, blobs)
            rows = parity.compare(graph, parity.graph_activations(graph, inputs), judge)
        errors = {row.layer: row.error for row in rows if row.error is not None}
        worst = max(errors, key=lambda layer: errors[layer])
        result[name] = {
            "layers": len(rows),
            "judged": len(errors),
            "worst": worst,
            "error": float(f"{errors[worst]:.2g}"),
        }
    return result


def size(smoke: bool) -> dict[str, Any]:
    """Time and memory of a conversion, in a process of its own."""
    name = "AlexNet"
    prototxt = WEIGHTS / "caffe_definitions" / DEFINITIONS[name]
    if smoke:
        prototxt = WEIGHTS / "caffe_lenet_mnist" / "lenet.prototxt"
    with tempfile.TemporaryDirectory() as folder:
        caffemodel = Path(folder) / "random.caffemodel"
        write_caffemodel(caffemodel, random_blobs(wire_up(caffe.read_prototxt(prototxt)).plans))
        command = [sys.executable, __file__, "convert", str(prototxt), str(caffemodel)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        megabytes = caffemodel.stat().st_size / 1e6
    return {"caffemodel_MB": round(megabytes, 1), **json.loads(output)}


def _convert(prototxt: str, caffemodel: str) -> dict[str, Any]:
    def peak() -> int:
        # Not ru_maxrss, which begins at the parent's.
        status = Path("/proc/self/status").read_text()
        return round(int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6)

    def clock() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    before, start = peak(), clock()
    converted = caffe.convert(prototxt, caffemodel)
    middle, read = peak(), clock()
    caffe.save_converted(Path(caffemodel).with_suffix(".safetensors"), converted)
    written = clock()
    return {
        "convert_s": round(read[0] - start[0], 2),
        "convert_cpu_s": round(read[1] - start[1], 2),
        "write_s": round(written[0] - read[0], 2),
        "write_cpu_s": round(written[1] - read[1], 2),
        "peak_MB_imports_only": before,
        "peak_MB_after_convert": middle,
        "peak_MB_after_write": peak(),
    }


def fuzz(smoke: bool, seed: int = 0) -> dict[str, Any]:
    """Damaged files: how many were read, refused, or got through as another exception."""
    rng = random.Random(seed)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, count, extra, run, original in _targets(place, smoke):
            outcome: collections.Counter[str] = collections.Counter()
            slowest = 0.0
            for _ in range(count):
                damaged = _damaged(rng, original, extra)
                # Processor time: a machine under load is no fault of the reader.
                start = time.process_time()
                try:
                    run(damaged)
                    outcome["read"] += 1
                except InputError as error:
                    outcome["refused" if "\n" not in str(error) else "refused in two lines"] += 1
                except Exception as error:
                    outcome[f"ESCAPED {type(error).__name__}: {str(error)[:80]}"] += 1
                slowest = max(slowest, time.process_time() - start)
            result[name] = {"inputs": count, **outcome, "slowest_cpu_s": round(slowest, 3)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**result, "total": sum(r["inputs"] for r in result.values()), "peak_MiB": round(peak)}


def _targets(place: Path, smoke: bool):
    """(reader, number of inputs, pieces to insert, function of bytes, a good file)."""
    lenet = WEIGHTS / "caffe_lenet_mnist"
    mean = (WEIGHTS / "caffe_cifar10_quick" / "mean.binaryproto").read_bytes()
    text = (lenet / "lenet.prototxt").read_bytes()
    v1 = (WEIGHTS / "caffe_cifar10_quick" / "cifar10_quick.prototxt").read_bytes()
    rng = np.random.default_rng(0)
    small = place / "small.caffemodel"
    blobs = {f"l{i}": [rng.standard_normal((3, i + 1)).astype(np.float32)] for i in range(4)}
    write_caffemodel(small, blobs)
    tiny = place / "tiny.prototxt"
    tiny.write_text(
        'input: "x" input_shape { dim: 1 dim: 3 dim: 6 dim: 6 }\n'
        'layer { name: "c" type: "Scale" bottom: "x" top: "c" }\n'
        'layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param '
        "{ kernel_size: 2 stride: 2 pad: 1 } }\n"
        'layer { name: "s" type: "Reshape" bottom: "p" top: "s" reshape_param '
        "{ shape { dim: 0 dim: -1 } axis: 0 } }\n"
    )
    good = place / "good.caffemodel"
    write_caffemodel(good, {"c": [np.ones(3, np.float32)]})
    converted = caffe.convert(tiny, good)
    saved = place / "saved.safetensors"
    caffe.save_converted(saved, converted)

    def file(name: str, data: bytes) -> Path:
        path = place / name
        path.write_bytes(data)
        return path

    def caffemodel(data: bytes) -> None:
        for array in caffe.Caffemodel(file("f.caffemodel", data)).values():
            array.sum()

    numbers = [bytes([b]) for b in (0, 1, 0x2D, 0x2A, 0x7F, 0x80, 0xFF)]
    numbers += [b"\xff" * 9, b"\xff\xff\xff\xff\x7f", b"\xa2\x06", b"\x12", b"\x3a\x00"]
    words = [b"{", b"}", b'"', b"-1", b"99999999999999999999", b"0", b"1e309", b"nan", b"\xff"]
    words += [b"dim: 0 ", b"dim: 1000000000 ", b"kernel_size: 3 ", b"group: 7 ", b"TEST", b"\n#"]
    words += [b"layer { ", b"include { phase: TEST } ", b'type: "LSTM" ', b"axis: -9 "]
    scale = 1000 if smoke else 1
    yield "caffemodel", 130_000 // scale, numbers, caffemodel, small.read_bytes()
    yield (
        "binaryproto",
        50_000 // scale,
        numbers,
        lambda d: caffe.read_binaryproto(file("f.binaryproto", d)),
        mean,
    )
    yield "prototxt", 10_000 // scale, words, lambda d: _wire(file("f.prototxt", d)), text
    yield "prototxt V1", 10_000 // scale, words, lambda d: _wire(file("f.prototxt", d)), v1
    yield (
        "prototxt to graph",
        10_000 // scale,
        words,
        lambda d: caffe.convert(file("f.prototxt", d), good),
        tiny.read_bytes(),
    )
    yield (
        "converted file",
        5_000 // scale,
        [*numbers, *words, b"[", b"null", b"1" * 30],
        lambda d: caffe.load_converted(file("f.safetensors", d)),
        saved.read_bytes(),
    )
    # The digest stops most damage to a file; a hostile author would recompute it.
    yield (
        "graph description",
        5_000 // scale,
        [*words, b"[", b"null", b"1" * 30],
        lambda d: nnx.eval_shape(lambda: Graph(d.decode(errors="replace"))),
        json.dumps(converted.description).encode(),
    )


def _wire(path: Path) -> None:
    caffe.read_prototxt(path)


def _damaged(rng: random.Random, original: bytes, pieces: list[bytes]) -> bytes:
    data = bytearray(original)
    if b"\x00" not in original and rng.random() < 0.7:
        # Text: exchange whole tokens, so that what is damaged is the meaning.
        for _ in range(rng.randint(1, 2)):
            tokens = list(re.finditer(rb"[A-Za-z_0-9.-]+", data))
            new = rng.choice([rng.choice(tokens).group(), rng.choice(pieces), _number(rng)])
            where = rng.choice(tokens)
            data[where.start() : where.end()] = new
        return bytes(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + rng.randint(1, 8)] = b""
        elif kind == 2:
            data[at:at] = rng.choice(pieces)
        elif kind == 3:
            data[at : at + rng.randint(1, 4)] = rng.choice(pieces)
        elif kind == 4:
            start = rng.randrange(len(data) + 1)
            data[at:at] = data[start : start + rng.randint(1, 40)]
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data)


def _number(rng: random.Random) -> bytes:
    return str(rng.choice([0, 1, 2, 3, 7, -1, 65536, 2**31 - 1, 2**32 - 1, 2**63 - 1])).encode()


def main() -> None:
    """Parse the command line, measure, print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    questions = {"accuracy": accuracy, "parity": layer_parity, "size": size, "fuzz": fuzz}
    parser.add_argument("question", choices=[*questions, "convert"])
    parser.add_argument("files", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--smoke", action="store_true", help="a small run")
    options = parser.parse_args()
    if options.question == "convert":
        print(json.dumps(_convert(*options.files)))
        return
    start = time.perf_counter()
    result = questions[options.question](options.smoke)
    print(
        json.dumps(
            {
                "benchmark": f"convert_caffe {options.question}",
                "smoke": options.smoke,
                **result,
                "seconds": round(time.perf_counter() - start, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
