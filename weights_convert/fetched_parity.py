"""How near the fetched networks are to their own framework: figures that were measured.

The error is max |ours - theirs| / max |theirs| over the outputs of the whole network, as
`jaxgen.load` gives it, for a few random inputs, in float32 on a CPU. The command beside each
figure prints it again; `tests/weights_convert/test_fetched_parity.py` compares.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["PARITY", "Parity", "said"]

_TORCH = "the network written in torch 2.13.0, with the published weights"
_TRANSCRIBED = "a transcription in torch 2.13.0, with the published weights"


class Parity(NamedTuple):
    """A comparison.

    Attributes:
      error: relative, of the worst number.
      judge: with what.
    """

    error: float
    judge: str


PARITY = {
    # A bound, not a figure: test_tfjs.py asserts it for the copy whose weights are float16.
    "progan-celeba128": Parity(1e-5, "the published graph walked in NumPy; a bound of the tests"),
    "mobilestylegan-ffhq": Parity(1.4e-5, "OpenVINO 2026.4.1, both published networks"),
    "digiface-dcgan": Parity(1.4e-6, _TORCH),
    "omniart-eyes": Parity(5.5e-7, _TORCH),
    "efficientnet-lite0": Parity(2.0e-6, _TORCH),
    "face-expression": Parity(4.2e-7, _TRANSCRIBED),
    "face-age-gender": Parity(2.5e-8, _TRANSCRIBED),
    "face-age": Parity(8.8e-7, "onnxruntime 1.32.0, the published network's probabilities"),
    "face-gender": Parity(7.2e-7, "onnxruntime 1.32.0, the published network's probabilities"),
}
"""Name -> what was measured."""


def said(name: str) -> dict[str, Any]:
    """Return a network's figure with what it was compared with and the command, for its card."""
    error, judge = PARITY[name]
    return {
        "worst relative error of the outputs": error,
        "against": judge,
        "by": f"python benchmarks/conversion/fetched.py --names {name}",
    }
