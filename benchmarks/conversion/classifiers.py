"""Do the class conditions give p(class) as the classifier's own framework has it?

Ten images through each converted classifier and each of the three conditions, for every class:
exp of `ClassLogSoftmax`, `ClassProbability`, and the softmax over classes of `ClassLogit`. All
three must equal the framework's softmax; the table has the largest difference, and the largest
difference of log p among probabilities above 1e-6. Conversion goes through the command line,
at its defaults.

  lenet      Caffe, MNIST digits; its file ends in a softmax. Judge: OpenCV
  squeezenet Caffe, ImageNet images; ends in logits. Judge: OpenCV's, through a softmax
  caffenet   Caffe definition with random weights, the same images; ends in a softmax. OpenCV
  onnx       ResNet-20 with a softmax, exported by torch, CIFAR-10 images. onnxruntime
  resnet20   torch, the same images. torch
  shipped    `fashion-mnist/cnn`, images of the shipped DCGAN; its layers in torch, float64

Where a file's softmax is kept (`--keep-softmax`), `probabilities` holds the
same difference with `takes="probabilities"`, and `refused` says whether each condition refuses
such outputs without it. Real weights come from JAXGEN_TEST_WEIGHTS.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen.data import read_idx
from jaxgen.target.conditions import ClassLogit, ClassLogSoftmax, ClassProbability

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = Path(os.environ.get("JAXGEN_TEST_WEIGHTS", ROOT.parent / "shared" / "weights"))
sys.path.insert(0, str(ROOT))  # for `weights_convert`
CONDITIONS = (ClassLogSoftmax, ClassProbability, ClassLogit)
COUNT, SMALL = 10, 1e-6
CIFAR_MEAN, CIFAR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Case(NamedTuple):
    """A converted classifier: what it gives at the defaults, and with its softmax kept.

    Attributes:
      network: as converted at the defaults.
      probabilities: with its softmax, or None where its file has none.
      images: `[10, H, W, channels]` in [0, 1].
      wanted: `[10, K]`, the framework's p(class).
      cut: whether `network` gives logits.
    """

    network: Any
    probabilities: Any
    images: np.ndarray
    wanted: np.ndarray
    cut: bool = True


def converted(scratch: Path, name: str, *arguments: Any) -> Any:
    """Return what the command line makes of a file."""
    from weights_convert.cli import main as convert

    out = scratch / f"{name}.safetensors"
    if convert([*map(str, arguments), "--out", str(out), "--force"]) != 0:
        raise RuntimeError(f"{name}: not converted")
    return jaxgen.load(out)


def caffe(scratch: Path, name: str, files: Any, preset: str, images: Any, blob: Any) -> Case:
    """Return a Caffe network, judged by OpenCV."""
    import cv2

    arguments = ("caffe", *files, "--preset", preset)
    network = converted(scratch, name, *arguments)
    has_softmax = '"Softmax"' in Path(files[0]).read_text()
    kept = None
    if has_softmax:
        kept = converted(scratch, f"{name}-kept", *arguments, "--keep-softmax")
    judge = cv2.dnn.readNetFromCaffe(*map(str, files))
    rows = []
    for one in blob:  # one by one: definitions may state a batch of ten
        judge.setInput(np.ascontiguousarray(one[None], np.float32))
        rows.append(np.asarray(judge.forward()).reshape(-1))
    wanted = np.stack(rows)
    return Case(network, kept, images, wanted if has_softmax else softmax(wanted))


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(logits) over its sum, in float64."""
    values = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


def lenet(scratch: Path) -> Case:
    """Return the first test digits of MNIST."""
    digits = read_idx(WEIGHTS / "images" / "mnist_t10k-images-idx3-ubyte.gz")[:COUNT]
    digits = np.asarray(digits, np.float32)[..., None]
    folder = WEIGHTS / "caffe_lenet_mnist"
    files = folder / "lenet.prototxt", folder / "lenet_iter_10000.caffemodel"
    return caffe(scratch, "lenet", files, "lenet", digits / 255, digits.transpose(0, 3, 1, 2) / 256)


def imagenet() -> tuple[np.ndarray, np.ndarray]:
    """Crops `[10, 227, 227, 3]` in [0, 1], and as Caffe takes them."""
    from PIL import Image

    paths = sorted((WEIGHTS / "images" / "imagenet").glob("*.JPEG"))[:COUNT]
    pixels = np.stack([
        np.asarray(Image.open(p).convert("RGB").resize((256, 256)), np.float32)[14:241, 14:241]
        for p in paths
    ])  # fmt: skip
    blob = (pixels[..., ::-1] - np.float32([104, 117, 123])).transpose(0, 3, 1, 2)
    return pixels / 255, blob


def squeezenet(scratch: Path) -> Case:
    """ImageNet images."""
    folder = WEIGHTS / "caffe_squeezenet_imagenet"
    files = folder / "deploy.prototxt", folder / "squeezenet_v1.0.caffemodel"
    return caffe(scratch, "squeezenet", files, "imagenet", *imagenet())


def caffenet(scratch: Path) -> Case:
    """Return the same images through a network without weights of its own."""
    from weights_convert.caffe import read_prototxt
    from weights_convert.caffe.random_blobs import random_blobs, write_caffemodel
    from weights_convert.caffe.wiring import wire_up

    prototxt = WEIGHTS / "caffe_definitions" / "bvlc_reference_caffenet.deploy.prototxt"
    model = scratch / "caffenet.caffemodel"
    write_caffemodel(model, random_blobs(wire_up(read_prototxt(prototxt)).plans))
    return caffe(scratch, "caffenet", (prototxt, model), "imagenet", *imagenet())


def cifar() -> tuple[np.ndarray, Any]:
    """CIFAR-10 images in [0, 1], and as torch takes them."""
    import torch

    with np.load(WEIGHTS / "images" / "cifar10_test_first2000.npz") as file:
        images = file["x"][:COUNT].astype(np.float32) / 255
    x = (images - np.float32(CIFAR_MEAN)) / np.float32(CIFAR_STD)
    return images, torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def torch_resnet() -> Any:
    """ResNet-20 in torch with its published weights."""
    import torch

    from weights_convert.pytorch import convert

    done = convert(WEIGHTS / "torch_resnet20_cifar10" / "resnet20-12fca82f.th", "cifar-resnet")
    module = done.recipe.reference(done.config)  # type: ignore[misc]
    state = {k: torch.from_numpy(np.array(v)) for k, v in done.state.items()}
    module.load_state_dict(state, strict=False)
    return module.eval()


def resnet20(scratch: Path) -> Case:
    """CIFAR-10 images."""
    import torch

    file = WEIGHTS / "torch_resnet20_cifar10" / "resnet20-12fca82f.th"
    network = converted(scratch, "resnet20", "torch", file, "--recipe", "cifar-resnet")
    images, x = cifar()
    with torch.no_grad():
        wanted = torch.softmax(torch_resnet()(x), dim=1).numpy()
    return Case(network, None, images, wanted)


def onnx(scratch: Path) -> Case:
    """Return the same network with a softmax, exported by torch; conversion cuts the softmax."""
    import onnxruntime
    import torch

    images, x = cifar()
    module = torch.nn.Sequential(torch_resnet(), torch.nn.Softmax(dim=1)).eval()
    file = scratch / "resnet20.onnx"
    torch.onnx.export(module, (x[:1],), str(file), dynamo=True, external_data=False)
    scaling = ("--mean", ",".join(map(str, CIFAR_MEAN)), "--std", ",".join(map(str, CIFAR_STD)))
    network = converted(scratch, "onnx", "onnx", file, *scaling, "--kind", "classifier")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    wanted = [session.run(None, {name: one[None]})[0][0] for one in x.numpy()]
    sums = np.asarray(network(jnp.asarray(images[0]))).sum()
    is_cut = abs(float(sums) - 1) > 1e-3
    return Case(network, None if is_cut else network, images, np.stack(wanted), is_cut)


def shipped(scratch: Path) -> Case:
    """Images of the shipped DCGAN; the judge is the classifier's layers in torch, float64."""
    import torch
    from safetensors.numpy import load_file

    generator, network = jaxgen.load("fashion-mnist/dcgan"), jaxgen.load("fashion-mnist/cnn")
    z = np.random.default_rng(0).normal(size=(COUNT, 64)).astype(np.float32)
    images = np.asarray(jax.vmap(generator)(jnp.asarray(z)))
    arrays = load_file(Path(jaxgen.__file__).parent / "shipped" / "fashion_mnist_cnn.safetensors")
    w = {name: torch.from_numpy(np.array(a, np.float64)) for name, a in arrays.items()}
    f = torch.nn.functional
    h = (torch.from_numpy(images.astype(np.float64).transpose(0, 3, 1, 2)) - 0.286) / 0.353
    for name, stride in (("conv1", 2), ("conv2", 1), ("conv3", 2), ("conv4", 1)):
        kernel = w[f"{name}.kernel"].permute(3, 2, 0, 1)
        h = f.conv2d(h, kernel, w[f"{name}.bias"], stride=stride, padding=1)
        h = f.gelu(h, approximate="tanh")
    h = h.permute(0, 2, 3, 1).reshape(COUNT, -1) @ w["hidden.kernel"] + w["hidden.bias"]
    h = f.gelu(h, approximate="tanh") @ w["logits.kernel"] + w["logits.bias"]
    return Case(network, None, images, torch.softmax(h, dim=1).numpy())


CASES: dict[str, Callable[[Path], Case]] = {
    "lenet": lenet,
    "squeezenet": squeezenet,
    "caffenet": caffenet,
    "onnx": onnx,
    "resnet20": resnet20,
    "shipped": shipped,
}


def through(condition: Any, network: Any, images: np.ndarray, count: int, **more: Any) -> Any:
    """Return a condition's value for every image and class: `[10, K]`."""

    @jax.jit
    def one(image: Any) -> Any:
        return jax.vmap(lambda label: condition(network, label, **more)(image))(jnp.arange(count))

    return np.stack([np.asarray(one(image), np.float64) for image in jnp.asarray(images)])


def probability(condition: Any, values: np.ndarray) -> np.ndarray:
    """Return what a condition's values say of p(class)."""
    if condition is ClassProbability:
        return values
    if condition is ClassLogSoftmax:
        return np.exp(values)
    return softmax(values)


def refused(condition: Any, network: Any, images: np.ndarray) -> bool:
    """Whether outputs that are probabilities are refused by a condition that takes logits."""
    outputs = np.stack([np.asarray(network(image)) for image in jnp.asarray(images[:4])])
    try:
        condition(network, 0).check_outputs(outputs)
    except jaxgen.InputError:
        return True
    return False


def measured(name: str, case: Case) -> dict[str, Any]:
    """Return a line of the table."""
    count = case.wanted.shape[1]
    line: dict[str, Any] = {"classifier": name, "classes": count, "logits": case.cut}
    best = case.wanted.argmax(axis=1)
    line["mean_p_of_best"] = float(case.wanted.max(axis=1).mean())
    likely = case.wanted > SMALL
    if case.cut:
        for condition in CONDITIONS:
            values = through(condition, case.network, case.images, count)
            p = probability(condition, values)
            line[condition.__name__] = float(np.abs(p - case.wanted).max())
            if condition is ClassLogSoftmax:
                line["log_p"] = float(np.abs(values[likely] - np.log(case.wanted[likely])).max())
                line["same_best"] = int(np.sum(p.argmax(axis=1) == best))
    if case.probabilities is not None:
        network = case.probabilities
        for condition in CONDITIONS[:2]:
            values = through(condition, network, case.images, count, takes="probabilities")
            difference = np.abs(probability(condition, values) - case.wanted).max()
            line[f"{condition.__name__}_of_probabilities"] = float(difference)
        line["refused"] = [refused(condition, network, case.images) for condition in CONDITIONS]
    return line


def main() -> None:
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--names", help="with commas; all by default")
    args = options.parse_args()
    names = args.names.split(",") if args.names else list(CASES)
    if args.smoke:
        names = ["shipped"]
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            rows.append(measured(name, CASES[name](Path(scratch))))
        print(rows[-1], file=sys.stderr, flush=True)
        jax.clear_caches()
    common.report("classifiers", rows=rows)


if __name__ == "__main__":
    main()
