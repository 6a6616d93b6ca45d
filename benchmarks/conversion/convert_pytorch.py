"""Is the conversion of PyTorch and TensorFlow.js weights right, fast, frugal and safe?

    python benchmarks/conversion/convert_pytorch.py {accuracy,parity,faces,size,fuzz} [--smoke]

accuracy: ResNet-20 on 2000 CIFAR-10 test images, and how often torch predicts the same.
parity:   every recipe with random weights at full size, and the real files: the worst relative
          error of any layer against torch (torchvision for its own networks).
faces:    16 faces of Progressive GAN in one picture (--out FILE), their expression, and the
          time of one forward pass and one gradient.
size:     seconds and peak memory to convert and write a .pth of 233 MB (AlexNet).
fuzz:     damaged files against every reader: each must be read or refused with InputError.

Prints one line of JSON. Real weights come from JAXGEN_TEST_WEIGHTS, by default from
../shared/weights beside the checkout. accuracy and parity need torch and torchvision.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen.core.errors import InputError
from weights_convert.pytorch import convert, convert_state, verify
from weights_convert.tfjs import convert_tfjs, read_manifest, read_npz
from weights_convert.torch_files import read_file

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = Path(os.environ.get("JAXGEN_TEST_WEIGHTS", ROOT.parent / "shared" / "weights"))
REAL = {
    "ResNet-20": ("torch_resnet20_cifar10/resnet20-12fca82f.th", "cifar-resnet", {}),
    "DCGAN generator": ("torch_mnist_dcgan/generator.pth", "dcgan", {"slope": 0.2}),
    "DCGAN discriminator": ("torch_mnist_dcgan/discriminator.pth", "dcgan-discriminator", {}),
    "VAE decoder": ("torch_mnist_vae/vae_epoch_25.pth", "vae-decoder", {}),
}
TORCHVISION = {
    "alexnet": "alexnet", "vgg11": "vgg", "vgg16": "vgg", "resnet18": "resnet",
    "resnet50": "resnet", "googlenet": "googlenet", "inception_v3": "inception-v3",
    "squeezenet1_0": "squeezenet", "squeezenet1_1": "squeezenet", "mobilenet_v2": "mobilenet-v2",
}  # fmt: skip


def accuracy(args: argparse.Namespace) -> dict[str, Any]:
    """ResNet-20 on CIFAR-10."""
    import torch

    done = convert(WEIGHTS / REAL["ResNet-20"][0], "cifar-resnet")
    with np.load(WEIGHTS / "images/cifar10_test_first2000.npz") as file:
        count = 250 if args.smoke else len(file["y"])
        images, labels = file["x"][:count].astype(np.float32) / 255, file["y"][:count]
    run = jax.jit(done.module)
    parts = [np.asarray(run(images[i : i + 250])) for i in range(0, count, 250)]
    ours = np.concatenate(parts).argmax(1)
    theirs = done.recipe.reference(done.config)  # type: ignore[misc]
    theirs.load_state_dict(
        {k: torch.from_numpy(np.array(v)) for k, v in done.state.items()}, strict=False
    )
    mean, std = (np.asarray(done.config[key], np.float32) for key in ("mean", "std"))
    x = torch.from_numpy(((images - mean) / std).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        wanted = theirs(x).numpy().argmax(1)
    return {
        "images": count,
        "accuracy": round(float((ours == labels).mean()), 4),
        "equal to torch": int((ours == wanted).sum()),
    }


def parity(args: argparse.Namespace) -> dict[str, Any]:
    """Return the worst layer of every recipe."""
    result: dict[str, Any] = {}

    def record(name: str, done: Any) -> None:
        rows = verify(done, batch=2)
        worst = max(rows, key=lambda row: row.error)
        result[name] = {"layers": len(rows), "error": float(f"{worst.error:.1e}")}
        print(name, result[name], file=sys.stderr, flush=True)

    for name, (file, recipe, options) in REAL.items():
        record(name, convert(WEIGHTS / file, recipe, options=options))
    from weights_convert import reference_gans
    from weights_convert.references import cifar_resnet, need_torchvision

    wide = [512, 512, 512, 512, 256, 128]
    layers = [(0, 16, 16), (1, 16, 16), (0, 16, 16), (1, 16, 8), (0, 8, 8), (1, 8, 4), (0, 4, 4),
              (1, 4, 2), (0, 2, 2), (1, 2, 1)]  # fmt: skip
    ch = 16 if args.smoke else 128
    biggan = {
        "layers": [[up, ch * a, ch * b] for up, a, b in layers], "width": ch, "attention": 8,
        "latent": 128, "classes": 1000, "label": 0, "epsilon": 1e-4, "truncation": 1.0,
    }  # fmt: skip
    if args.smoke:
        wide = [w // 16 for w in wide]
    made = {
        "ResNet-56 (CIFAR)": ("cifar-resnet", cifar_resnet(56, 10)),
        "ProGAN 128": ("progan", reference_gans.progan(512, wide, 3)),
        "StyleGAN2 128": ("stylegan2", reference_gans.stylegan2(512, 512, 8, wide)),
        "BigGAN-deep 128": ("biggan-deep", reference_gans.biggan_deep(biggan)),
    }
    for name, (recipe, module) in made.items():
        record(name, convert_state(random_arrays(module), recipe))
    models = need_torchvision().models
    for name, recipe in TORCHVISION.items():
        if args.smoke and name.startswith("vgg"):
            continue
        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        module = getattr(models, name)(weights=None, **extra)
        record(name, convert_state(random_arrays(module), recipe))
    return result


def random_arrays(module: Any) -> dict[str, np.ndarray]:
    """Random weights of a sensible size, and statistics that are not the defaults."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, value in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        array = rng.standard_normal(tuple(value.shape), np.float32)
        if name.endswith(("running_var", "running_vars")):
            array = 0.5 + np.abs(array)
        elif name.endswith(("weight_u", "weight_v")):
            array = np.abs(array) / np.linalg.norm(array)
        elif name.endswith("weight_orig"):
            array = 1.0 + array
        elif name.endswith("weight") and array.ndim in (2, 4) and ".style" not in name:
            array = array * np.float32((2.0 / array[0].size) ** 0.5)
        elif array.ndim == 1:
            array = 0.3 * array + (1.0 if name.endswith("weight") else 0.0)
        arrays[name] = np.asarray(array, np.float32)
    return arrays


def faces(args: argparse.Namespace) -> dict[str, Any]:
    """Return a picture of 16 faces, what the expression network says of them, and times."""
    from PIL import Image

    from jaxgen.models.ported.faceapi import EXPRESSIONS
    from jaxgen.target.networks import freeze

    npz = WEIGHTS / "progan_celeba128/progan_celeba128_fp16.npz"
    begin = time.perf_counter()
    generator = freeze(convert_tfjs(npz, "progan-celeba128")[0])
    seconds = time.perf_counter() - begin
    manifest = WEIGHTS / "face_api/face_expression_model-weights_manifest.json"
    expression = freeze(convert_tfjs(manifest, "face-expression")[0])
    z = np.random.default_rng(0).standard_normal((16, 512), np.float32)
    run = jax.jit(lambda net, z: net(z))
    images = np.concatenate([np.asarray(run(generator, z[i : i + 4])) for i in range(0, 16, 4)])
    shown = np.clip(images, 0, 1)
    grid = shown.reshape(4, 4, 128, 128, 3).transpose(0, 2, 1, 3, 4).reshape(512, 512, 3)
    if args.out:
        Image.fromarray((255 * grid + 0.5).astype(np.uint8)).save(args.out)
    crops = jax.image.resize(shown[:, 10:118, 10:118], (16, 112, 112, 3), "linear")
    found = np.asarray(jax.jit(lambda net, x: net(x))(expression, crops)).argmax(1)
    gradient = jax.jit(jax.grad(lambda z, net: (net(z) ** 2).sum()))

    def timed(function: Any) -> float:
        jax.block_until_ready(function())
        start = time.perf_counter()
        for _ in range(3):
            jax.block_until_ready(function())
        return round((time.perf_counter() - start) / 3, 3)

    return {
        "convert_s": round(seconds, 2),
        "outside [0, 1]": round(float(((images < 0) | (images > 1)).mean()), 4),
        "expressions": dict(collections.Counter(EXPRESSIONS[i] for i in found)),
        "forward_s": timed(lambda: run(generator, z[0])),
        "gradient_s": timed(lambda: gradient(z[0], generator)),
        "device": jax.devices()[0].device_kind,
    }


def size(args: argparse.Namespace) -> dict[str, Any]:
    """Convert a large file in a process of its own."""
    import torch

    from weights_convert.references import need_torchvision

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "alexnet.pth"
        torch.save(need_torchvision().models.alexnet(weights=None).state_dict(), path)
        code = (
            "import resource, time, sys\n"
            "from weights_convert.pytorch import convert\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "start = time.perf_counter()\n"
            f"convert({str(path)!r}, 'alexnet', {str(Path(folder) / 'out.safetensors')!r})\n"
            "seconds = time.perf_counter() - start\n"
            "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "print(seconds, before * 1024, after * 1024)\n"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        seconds, before, after = map(float, out.stdout.split())
        length = path.stat().st_size
    return {
        "file_mb": round(length / 1e6),
        "seconds": round(seconds, 1),
        "peak_mb": round(after / 1e6),
        "peak_without_imports_over_file": round((after - before) / length, 2),
    }


def rezipped(stream: bytes) -> bytes:
    """Return a sound zip around a damaged pickle stream: the damage gets past the checksum."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", stream)
        archive.writestr("archive/data/0", bytes(24))
        archive.writestr("archive/data/1", bytes(6))
    return buffer.getvalue()


def seeds(folder: Path) -> list[tuple[str, Any, bytes]]:
    """Small good files: (suffix, reader, content)."""
    arrays = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float16)}
    found: list[tuple[str, Any, bytes]] = []
    for name in ("torch_mnist_vae/vae_epoch_25.pth",):
        if (WEIGHTS / name).is_file():
            found.append((".pth", read_file, (WEIGHTS / name).read_bytes()[:4000]))
    try:
        import torch

        for zipped in (True, False):
            buffer = io.BytesIO()
            state = collections.OrderedDict((k, torch.from_numpy(v)) for k, v in arrays.items())
            torch.save({"state_dict": state, "epoch": 3}, buffer,
                       _use_new_zipfile_serialization=zipped)  # fmt: skip
            found.append((".pth", read_file, buffer.getvalue()))
            if zipped:
                with zipfile.ZipFile(buffer) as archive:
                    data = next(n for n in archive.namelist() if n.endswith("data.pkl"))
                    found.append((".rezip", read_file, archive.read(data)))
    except ImportError:
        print("without torch: fewer seeds", file=sys.stderr)
    found.append((".pkl", read_file, pickle.dumps({"x": [1, "y", (2.0, None)]})))
    from safetensors.numpy import save

    found.append((".safetensors", read_file, save(arrays)))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    found.append((".npz", read_npz, buffer.getvalue()))
    (folder / "w.bin").write_bytes(bytes(range(24)))
    entries = [
        {"name": "a", "shape": [2], "dtype": "float32"},
        {"name": "b", "shape": [4, 4], "dtype": "float32",
         "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1.0}},
    ]  # fmt: skip
    manifest = json.dumps([{"paths": ["w.bin"], "weights": entries}]).encode()
    found.append((".json", read_manifest, manifest))
    return found


def mutated(rng: random.Random, raw: bytes) -> bytes:
    """One to eight changes: bits, bytes, runs cut, doubled or overwritten, the end cut off."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del data[at : at + rng.randint(1, 16)]
        elif kind == 3:
            data[at:at] = data[at : at + rng.randint(1, 64)]
        elif kind == 4:
            length = rng.choice((1, 2, 4, 8))
            data[at : at + length] = rng.choice((b"\xff", b"\x00", b"\x7f")) * length
        else:
            del data[len(data) - rng.randint(0, min(40, len(data))) :]
    return bytes(data)


def fuzz(args: argparse.Namespace) -> dict[str, Any]:
    """Random damage; anything but success or InputError is a fault."""
    count = args.count or (2_000 if args.smoke else 200_000)
    rng = random.Random(args.seed)
    result: collections.Counter[str] = collections.Counter()
    faults: list[str] = []
    slowest = 0.0
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        folder = Path(name)
        found = seeds(folder)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.perf_counter()
        for i in range(count):
            suffix, reader, raw = found[i % len(found)]
            path = folder / f"bad{suffix}"
            damaged = mutated(rng, raw)
            path.write_bytes(rezipped(damaged) if suffix == ".rezip" else damaged)
            start = time.perf_counter()
            try:
                reader(path)
                result["read"] += 1
            except InputError:
                result["refused"] += 1
            except Exception as error:
                result["faults"] += 1
                faults.append(f"{reader.__name__} {type(error).__name__}: {error}"[:200])
            slowest = max(slowest, time.perf_counter() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "inputs": count,
        **result,
        "faults": result["faults"],
        "kinds of fault": sorted(set(faults))[:10],
        "slowest_s": round(slowest, 3),
        "memory_grown_mb": round(grown / 1024, 1),
        "seconds": round(time.perf_counter() - begin),
    }


def main() -> None:
    """Run one benchmark and print its line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    benchmarks = {
        "accuracy": accuracy,
        "parity": parity,
        "faces": faces,
        "size": size,
        "fuzz": fuzz,
    }
    parser.add_argument("what", choices=benchmarks)
    parser.add_argument("--smoke", action="store_true", help="a small size, seconds")
    parser.add_argument("--out", help="faces: where to put the picture")
    parser.add_argument("--count", type=int, help="fuzz: number of inputs")
    parser.add_argument("--seed", type=int, default=0, help="fuzz")
    args = parser.parse_args()
    print(json.dumps({"benchmark": f"convert_pytorch {args.what}", **benchmarks[args.what](args)}))


if __name__ == "__main__":
    main()
