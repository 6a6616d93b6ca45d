"""The models that come with jaxgen or are fetched, by name, and weight files by path.

A weight file names its architecture and the configuration to build it with. Loading
builds the structure abstractly, with no random numbers drawn, and fills it; two files of
one architecture give equal structures, so a jitted function does not compile again.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jaxgen.core import names
from jaxgen.core.errors import InputError, expected
from jaxgen.core.types import Array
from jaxgen.data import CLASS_NAMES
from jaxgen.models.catalogue import FETCHABLE, PARTS, SHIPPED, TRAINABLE
from jaxgen.models.fashion_mnist import (
    autoencoders,
    began,
    captioner,
    cnn,
    dcgan,
    judge,
    mlp,
    residual,
    vae,
)
from jaxgen.models.fetched import cached
from jaxgen.models.hub import PREFIX, obtained
from jaxgen.models.ported import PORTED
from jaxgen.models.text import infillers, language_models
from jaxgen.models.weights import fill, load_weights, read_metadata
from jaxgen.target.networks import Network, freeze

__all__ = [
    "ARCHITECTURES",
    "SEQUENCE",
    "TRAINABLE",
    "Architecture",
    "ModelInfo",
    "available",
    "build",
    "describe",
    "load",
]


# Tokens in a sequence, where a network takes any number: what its shapes are described for.
SEQUENCE = 20

# Of an array of a network: a foreign configuration may ask for any size.
_LONGEST_AXIS = 1 << 31


class Architecture(NamedTuple):
    """An architecture: how to build its module, its kind, its input, and how it is called."""

    make: Callable[..., nnx.Module]
    kind: str
    input_shape: Callable[[dict[str, Any]], tuple[int, ...]]
    dtype: DTypeLike = jnp.float32
    apply: Callable[[Any, Array], Any] = lambda module, x: module(x)


def _image(config: dict[str, Any]) -> tuple[int, ...]:
    return (28, 28, 1)


def _plane(config: dict[str, Any]) -> tuple[int, ...]:
    return (2,)


def _tokens(config: dict[str, Any]) -> tuple[int, ...]:
    return (SEQUENCE,)


def _infilled(module: Any, tokens: Array) -> Array:
    """Log probabilities of a sequence, all of it blanks."""
    return module.log_probs(tokens[None], jnp.zeros_like(tokens, bool)[None])[0]


def _graph(description: Any, rngs: object = None) -> Any:
    """Return a converted Caffe network; its layers are imported only where there is one."""
    from jaxgen.models.caffe.graph import Graph

    return Graph(description)


def _tensor_graph(description: Any, rngs: object = None) -> Any:
    """Return a converted ONNX or OpenVINO network; likewise."""
    from jaxgen.models.tensor_ops import TensorGraph

    return TensorGraph(description)


def _tensor_graph_input(config: dict[str, Any]) -> tuple[int, ...]:
    shapes = nnx.eval_shape(lambda: _tensor_graph(**config)).sample_shapes
    if len(shapes) != 1:
        raise expected(
            "tensor_ops.TensorGraph", "one input to describe", f"{len(shapes)}: {shapes}"
        )
    return shapes[0]


def _graph_input(config: dict[str, Any]) -> tuple[int, ...]:
    shapes = nnx.eval_shape(lambda: _graph(**config)).sample_shapes
    if len(shapes) != 1:
        raise expected("graph.Graph", "one input to describe", f"{len(shapes)}: {shapes}")
    return shapes[0]


ARCHITECTURES = {
    "dcgan.Generator": Architecture(
        dcgan.Generator, "generator", lambda config: (config.get("latent", 64),)
    ),
    "residual.Generator": Architecture(
        residual.Generator, "generator", lambda config: (config.get("latent", 64),)
    ),
    "dcgan.Discriminator": Architecture(dcgan.Discriminator, "discriminator", _image),
    "began.Generator": Architecture(
        began.Generator, "generator", lambda config: (config.get("latent", 64),)
    ),
    "began.Autoencoder": Architecture(began.Autoencoder, "autoencoder", _image),
    "vae.Decoder": Architecture(
        vae.Decoder, "generator", lambda config: (config.get("latent", 20),)
    ),
    "vae.Encoder": Architecture(vae.Encoder, "encoder", _image),
    "captioner.Captioner": Architecture(captioner.Captioner, "captioner", _image),
    "cnn.Classifier": Architecture(cnn.Classifier, "classifier", _image),
    "judge.Judge": Architecture(judge.Judge, "classifier", _image),
    "autoencoders.ImageAutoencoder": Architecture(
        autoencoders.ImageAutoencoder, "autoencoder", _image
    ),
    "autoencoders.CodeAutoencoder": Architecture(
        autoencoders.CodeAutoencoder, "autoencoder", lambda config: (config.get("size", 128),)
    ),
    "mlp.ToyGenerator": Architecture(mlp.ToyGenerator, "generator", _plane),
    "mlp.ToyDiscriminator": Architecture(mlp.ToyDiscriminator, "discriminator", _plane),
    # They take tokens and are used by their methods: `network.call("sample", key, 8, 20)`.
    "sequences.Writer": Architecture(
        language_models.LanguageModel,
        "writer",
        _tokens,
        jnp.int32,
        lambda module, x: module.log_probs(x),
    ),
    "infillers.Infiller": Architecture(
        infillers.Infiller, "infiller", _tokens, jnp.int32, _infilled
    ),
    "graph.Graph": Architecture(_graph, "network", _graph_input),
    "tensor_ops.TensorGraph": Architecture(_tensor_graph, "network", _tensor_graph_input),
    **{name: Architecture(net.make, net.kind, net.input_shape) for name, net in PORTED.items()},
}


@dataclass(frozen=True)
class ModelInfo:
    """A description of a model, without its weights.

    Attributes:
      name: as given to `load`.
      kind: "generator", "discriminator", "classifier", "encoder", "writer", "infiller" ...
      input_shape: of one sample.
      output_shape: of one sample.
      classes: the names of the classes of a classifier, else empty.
      metadata: what the weight file says: data, recipe, measured figures, licence ...
      size: number of parameters.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    classes: tuple[str, ...]
    metadata: dict[str, Any]
    size: int


def available() -> tuple[str, ...]:
    """Return the names `load` knows."""
    return tuple(SHIPPED)


def load(name: str | Path) -> Network:
    """Return a pretrained network, ready to sample with.

    Args:
      name: one of `available()`, one of `FETCHABLE` once `jaxgen fetch` has obtained it,
        the path of a `.safetensors` file that jaxgen or `weights_convert` wrote, or such a file
        on the Hugging Face Hub at a commit: "hf://owner/name/file.safetensors@" and 40 hex
        digits, with `huggingface_hub` installed.

    Returns:
      A `Network` that takes one sample or a batch. Of those that are shipped, images are
      `[28, 28, 1]` in [0, 1], latents standard normal, and classifiers give logits.

    Raises:
      InputError: for an unknown name (with the nearest one), one not yet fetched, or a damaged
        file.
    """
    path, part = _place(name)
    weights, metadata = load_weights(path)
    architecture, config = _architecture(path, metadata, part)
    module = _abstract(path, metadata, part)
    if _has_parts(metadata):
        wanted = {".".join(map(str, at)) for at, _ in nnx.to_flat_state(nnx.state(module))}
        weights = {key: array for key, array in weights.items() if key in wanted}
    module = fill(module, weights, str(path))
    try:
        shape = architecture.input_shape(config)
    except InputError:  # a network of several inputs
        shape = None
    return freeze(module, shape, _classes(metadata, architecture))


def describe(name: str | Path) -> ModelInfo:
    """Return what a model is: kind, shapes, classes, size and metadata. Errors as in `load`."""
    path, part = _place(name)
    metadata = read_metadata(path)
    architecture, config = _architecture(path, metadata, part)
    module = _abstract(path, metadata, part)
    shape = architecture.input_shape(config)
    output = jax.eval_shape(
        architecture.apply, module, jax.ShapeDtypeStruct(shape, architecture.dtype)
    )
    if not hasattr(output, "shape"):
        raise expected(f"{name}: outputs", "one to describe", ", ".join(output))
    size = sum(prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
    kind = metadata.get("kind", architecture.kind)
    if part is not None:
        kind = _part(metadata, part).get("kind", kind)
    classes = _classes(metadata, architecture)
    # A word of ours or of a converter's, which is printed and compared.
    if not isinstance(kind, str) or len(kind) > 60 or not kind.isprintable():
        raise expected(f"{name}: kind", "a word, as in 'generator'", repr(kind)[:80])
    return ModelInfo(str(name), kind, shape, tuple(output.shape), classes, metadata, size)


def build(architecture: str, config: dict[str, Any]) -> nnx.Module:
    """Return the abstract module (shapes, no numbers) of an architecture and its configuration.

    Raises:
      InputError: for an unknown architecture or a configuration it does not take.
    """
    if architecture not in ARCHITECTURES:
        raise expected("architecture", f"one of {', '.join(ARCHITECTURES)}", repr(architecture))
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    try:
        module = nnx.eval_shape(lambda: ARCHITECTURES[architecture].make(**plain, rngs=nnx.Rngs(0)))
    except InputError as error:  # it says more than we could
        raise InputError(f"{architecture}: {error}") from error
    except Exception as error:  # whatever a foreign configuration makes of a constructor
        raise expected(f"{architecture}: config", "one it takes", repr(config)[:400]) from error
    if any(n > _LONGEST_AXIS for leaf in jax.tree.leaves(nnx.state(module)) for n in leaf.shape):
        wanted = f"arrays with axes of up to {_LONGEST_AXIS}"
        raise expected(f"{architecture}: config", wanted, repr(config)[:400])
    return module


def _abstract(path: Path, metadata: dict[str, Any], part: str | None) -> nnx.Module:
    _, config = _architecture(path, metadata, part)
    return build(metadata["architecture"]["name"], config)


def _architecture(
    path: Path, metadata: dict[str, Any], part: str | None
) -> tuple[Architecture, dict[str, Any]]:
    entry = metadata.get("architecture")
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(name, str) or name not in ARCHITECTURES:
        raise expected(
            f"{path}: architecture", f"one of {', '.join(ARCHITECTURES)}", repr(entry)[:80]
        )
    config = entry.get("config", {})
    if not isinstance(config, dict):
        raise expected(f"{path}: architecture", "a configuration", repr(config)[:80])
    if _has_parts(metadata):
        from jaxgen.models.tensor_ops.variants import variant_of

        config = {**config, "description": variant_of(config["description"], part)}
    elif part is not None:
        raise expected(str(path), f"a file with the part {part!r}", "one without parts")
    return ARCHITECTURES[entry["name"]], config


def _classes(metadata: dict[str, Any], architecture: Architecture) -> tuple[str, ...]:
    # Others' classifiers have classes of their own, and say them or not.
    ours = metadata["architecture"]["name"] in ("cnn.Classifier", "judge.Judge")
    classes = metadata.get("classes", CLASS_NAMES if ours else ())
    return tuple(str(name) for name in classes) if isinstance(classes, list | tuple) else ()


# What other frameworks write, and the command that reads it.
_FOREIGN = {
    ".pth": "torch",
    ".pt": "torch",
    ".th": "torch",
    ".ckpt": "torch",
    ".bin": "torch",
    ".pkl": "torch",
    ".caffemodel": "caffe",
    ".prototxt": "caffe",
    ".onnx": "onnx",
    ".xml": "openvino",
}
_UNREAD = {
    ".keras": "Keras",
    ".h5": "Keras",
    ".msgpack": "flax",
    ".npz": "NumPy",
    ".npy": "NumPy",
    ".eqx": "equinox",
}


def _foreign(name: str | Path) -> None:
    """Say how to convert what another framework wrote."""
    suffix = Path(name).suffix.lower()
    if suffix in _FOREIGN:
        kind = _FOREIGN[suffix]
        how = {"torch": f"{name} --recipe NAME", "caffe": "--help"}.get(kind, str(name))
        raise expected(
            "name",
            "a .safetensors file of jaxgen's",
            repr(str(name)),
            f"Convert it once: python -m weights_convert {kind} {how}"
            + ("" if kind == "caffe" else " --out FILE.safetensors"),
        )
    if suffix in _UNREAD:
        raise expected(
            "name",
            "a .safetensors file of jaxgen's",
            f"{str(name)!r}, a {_UNREAD[suffix]} file",
            "Load it in its own library and give the JAX function to Posterior",
        )


def _has_parts(metadata: dict[str, Any]) -> bool:
    """Return whether a file holds several networks in one graph; see `tensor_ops.variants`."""
    entry = metadata.get("architecture")
    config = entry.get("config") if isinstance(entry, dict) else None
    description = config.get("description") if isinstance(config, dict) else None
    return isinstance(description, dict) and "variants" in description


def _part(metadata: dict[str, Any], part: str) -> dict[str, Any]:
    """Return what a file says of one of its parts."""
    found = metadata["architecture"]["config"]["description"]["variants"].get(part, {})
    return found if isinstance(found, dict) else {}


def _place(name: str | Path) -> tuple[Path, str | None]:
    """Return the file of a name, and which part of it, where it holds several networks."""
    if str(name).startswith(PREFIX):
        return obtained(str(name)), None
    if str(name) in SHIPPED:
        path = Path(str(files("jaxgen") / "shipped" / f"{SHIPPED[str(name)]}.safetensors"))
        if not path.is_file():
            raise InputError(
                f"{name}: its weights are not installed; train it with `jaxgen train {name}`"
            )
        return path, None
    base, _, part = str(name).partition("/")
    if base in FETCHABLE and (not part or part in PARTS.get(base, ())):
        path = cached(base)
        if not path.is_file():
            raise InputError(f"{name}: its weights are not here yet; run: jaxgen fetch {base}")
        return path, part or None
    if str(name) in TRAINABLE:
        command = f"{name} --text FILE" if str(name).startswith("text/") else name
        raise InputError(
            f"{name}: its weights are not shipped; train it with `jaxgen train {command}` and give "
            "the file's path"
        )
    if Path(name).suffix == ".safetensors":
        if not Path(name).is_file():
            raise expected("name", "a weight file that exists", str(name))
        return Path(name), None
    _foreign(name)
    parts = [f"{base}/{part}" for base, found in PARTS.items() for part in found]
    known = (*SHIPPED, *TRAINABLE, *FETCHABLE)
    near = difflib.get_close_matches(str(name), (*known, *parts), 1, 0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise expected(
        "name",
        f"one of {', '.join(known)}, or the path of a .safetensors file",
        repr(str(name)),
        hint.strip(),
    )


names.install(load)
