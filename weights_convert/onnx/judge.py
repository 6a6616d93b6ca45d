"""Every tensor of an ONNX model as other software computes it: onnxruntime, or onnx itself.

`onnxruntime` runs with its graph optimisations switched off, so that every tensor exists.
Where it is not installed the reference evaluator of the `onnx` package takes its place, which
is written in NumPy and slow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.core.errors import InputError
from weights_convert.onnx.reader import onnx_package, parse
from weights_convert.report import plain

__all__ = ["onnx_tensors"]


def onnx_tensors(
    path: str | Path, inputs: Mapping[str, np.ndarray], names: Sequence[str]
) -> tuple[dict[str, np.ndarray], str]:
    """Tensor -> numbers for one sample, of those `names` that the model has, and who says so.

    Args:
      path: the model.
      inputs: input -> whole tensor.
      names: the tensors to return.

    Raises:
      InputError: if the judge cannot run the model.
    """
    onnx = onnx_package()
    model = parse(Path(path))
    made = {name for node in model.graph.node for name in node.output}
    wanted = [name for name in dict.fromkeys(names) if name in made]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    types = {i.name: i.type.tensor_type.elem_type for i in model.graph.input}
    feeds = {
        name: array.astype(onnx.helper.tensor_dtype_to_np_dtype(types[name]))
        for name, array in inputs.items()
    }
    # Shapes for one sample may differ from those that the file declares.
    for value in model.graph.input:
        if value.name in feeds:
            for i, n in enumerate(feeds[value.name].shape):
                value.type.tensor_type.shape.dim[i].dim_value = n
    del model.graph.value_info[:]
    try:
        import onnxruntime
    except ImportError:
        return _reference(model, feeds, wanted, path)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        with _Folder(path, model) as where:
            session: Any = onnxruntime.InferenceSession(
                where, options, providers=["CPUExecutionProvider"]
            )
            results = session.run(wanted, feeds)
    except Exception as error:  # whatever its C++ raises
        reason = plain(str(error), 200)
        raise InputError(f"{Path(path).name}: onnxruntime cannot judge it ({reason})") from error
    found = {n: np.asarray(x) for n, x in zip(wanted, results, strict=True)}
    return found, f"onnxruntime {onnxruntime.__version__}"


class _Folder:
    """The model's bytes, or a copy beside it where its numbers lie in files of their own."""

    def __init__(self, path: str | Path, model: Any):
        self.path, self.model = Path(path), model
        self.copy: Path | None = None

    def __enter__(self) -> bytes | str:
        if not any(t.data_location == t.EXTERNAL for t in self.model.graph.initializer):
            return self.model.SerializeToString()
        import os
        import tempfile

        handle, name = tempfile.mkstemp(suffix=".onnx", dir=self.path.parent)
        self.copy = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(self.model.SerializeToString())
        return name

    def __exit__(self, *_: Any) -> None:
        if self.copy is not None:
            self.copy.unlink()


def _reference(
    model: Any, feeds: Mapping[str, np.ndarray], wanted: Sequence[str], path: str | Path
) -> tuple[dict[str, np.ndarray], str]:
    onnx, reference = onnx_package(), onnx_package("onnx.reference")
    try:
        onnx.load_external_data_for_model(model, str(Path(path).parent))
        results: Any = reference.ReferenceEvaluator(model).run(list(wanted), dict(feeds))
    except Exception as error:  # its operators raise what they like
        reason = plain(str(error), 200)
        raise InputError(f"{Path(path).name}: onnx cannot judge it ({reason})") from error
    found = {n: np.asarray(x) for n, x in zip(wanted, results, strict=True)}
    return found, f"onnx {onnx.__version__}'s reference"
