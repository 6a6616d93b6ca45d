"""The ImageNet script, whole, on definitions of the same kind that are small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "papers" / "ppgn_imagenet.py"

GENERATOR = """
input: "feat" input_shape { dim: 1 dim: 6 }
layer { name: "defc5" type: "InnerProduct" bottom: "feat" top: "defc5"
  inner_product_param { num_output: 32 } }
layer { name: "relu5" type: "ReLU" bottom: "defc5" top: "defc5"
  relu_param { negative_slope: 0.3 } }
layer { name: "reshape" type: "Reshape" bottom: "defc5" top: "cube"
  reshape_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 } } }
layer { name: "deconv0" type: "Deconvolution" bottom: "cube" top: "deconv0"
  convolution_param { num_output: 3 kernel_size: 4 stride: 2 pad: 1 } }
"""
ENCODER = """
input: "data" input_shape { dim: 1 dim: 3 dim: 7 dim: 7 }
layer { name: "fc6" type: "InnerProduct" bottom: "data" top: "fc6"
  inner_product_param { num_output: 6 } }
layer { name: "relu6" type: "ReLU" bottom: "fc6" top: "fc6" }
layer { name: "fc8" type: "InnerProduct" bottom: "fc6" top: "fc8"
  inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "fc8" top: "prob" }
"""


@pytest.mark.slow
def test_every_row_runs(tmp_path):
    (tmp_path / "generator.prototxt").write_text(GENERATOR)
    (tmp_path / "encoder.prototxt").write_text(ENCODER)
    done = subprocess.run(
        [
            sys.executable, SCRIPT, "--random",
            "--generator", tmp_path / "generator.prototxt",
            "--encoder", tmp_path / "encoder.prototxt",
            "--classes", "3,1", "--chains", "2", "--steps", "20",
            "--figure", tmp_path / "grid.png",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.strip().splitlines()[-1])
    methods = ["ppgn", "dgn-am", "dgn-am+clip", "mala", "mala+clip", "hmc"]
    assert [row["method"] for row in line["rows"]] == methods
    assert line["side"] == 7
    assert all(0 <= row["probability"] <= 1 for row in line["rows"])
    assert line["rows"][0]["gradients"] == 21
    assert (tmp_path / "grid.png").stat().st_size > 300


def test_weights_must_be_given(tmp_path):
    (tmp_path / "generator.prototxt").write_text(GENERATOR)
    done = subprocess.run(
        [sys.executable, SCRIPT, "--generator", tmp_path / "generator.prototxt", "--encoder", "x"],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "give its caffemodel" in done.stderr
