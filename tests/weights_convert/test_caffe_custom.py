"""Fields of forks, cut trunks, declared preprocessing, and layers that OpenCV gets wrong."""

import numpy as np
import pytest
from caffe_files import net_text, opencv, write_net

import jaxgen
from jaxgen.core.errors import InputError
from jaxgen.models.weights import read_metadata
from weights_convert import caffe
from weights_convert.caffe.numpy_judge import judged_activations
from weights_convert.cli import main

X = {"data": (1, 3, 6, 6)}
TRUNK = (
    'name: "conv" type: "Convolution" bottom: "data" top: "h" '
    "convolution_param { num_output: 4 kernel_size: 3 }",
    'name: "relu" type: "ReLU" bottom: "h" top: "h"',
    'name: "fc" type: "InnerProduct" bottom: "h" top: "fc" inner_product_param { num_output: 2 }',
)
CUSTOM = {
    "PriorBox": 'name: "box" type: "PriorBox" bottom: "h" bottom: "data" top: "box" '
    "prior_box_param { min_size: 30.0 aspect_ratio: 2 flip: true variance: [0.1, 0.2] }",
    "BN": 'name: "box" type: "BN" bottom: "fc" top: "box" bn_param { eps: 1e-5 } '
    "new_field: \"a\" 'b' other_field: 3",
    "Python": 'name: "box" type: "Python" bottom: "h" top: "box" '
    'python_param { module: "m" layer: "L" param_str: "{}" }',
}


def files(tmp_path, *layers):
    """A network whose weights are those of the trunk."""
    trunk = write_net(tmp_path, net_text(X, *TRUNK))
    if layers:
        trunk[0].write_text(net_text(X, *layers))
    return [str(path) for path in trunk]


@pytest.mark.parametrize("kind", CUSTOM)
def test_a_layer_of_a_fork_is_refused_by_its_type_with_the_way_out(tmp_path, kind):
    paths = files(tmp_path, *TRUNK, CUSTOM[kind])
    bottom = "--output fc" if kind == "BN" else "--output h"
    with pytest.raises(InputError, match=f"'box' has unknown type '{kind}'.*{bottom}"):
        caffe.convert(*paths)
    whole = caffe.convert(*files(tmp_path))
    cut = caffe.convert(*files(tmp_path, *TRUNK, CUSTOM[kind]), outputs=["fc"])
    x = np.random.default_rng(0).random((6, 6, 3), np.float32)
    np.testing.assert_array_equal(cut.network(x), whole.network(x))


def test_a_trunk_may_be_cut_by_the_name_of_a_layer_and_its_other_blobs_are_left_out(tmp_path):
    paths = files(tmp_path, *TRUNK, CUSTOM["PriorBox"])
    cut = caffe.convert(*paths, outputs=["relu"])
    assert list(cut.graph.layer_types) == ["conv", "relu"]
    assert cut.description["outputs"] == ["h"]
    assert set(cut.ignored) == {"fc[0]", "fc[1]"}


def test_a_custom_field_in_a_known_layer_is_refused_by_the_layer(tmp_path):
    strange = TRUNK[1] + " relu6_param { high: 6 }"
    paths = files(tmp_path, TRUNK[0], strange, TRUNK[2])
    with pytest.raises(InputError) as error:
        caffe.convert(*paths)
    for words in ("net.prototxt:4: layer 'relu' (ReLU) has no field named relu6_param", "delete it",
                  "--output h"):  # fmt: skip
        assert words in str(error.value)


@pytest.mark.parametrize(
    "tail",
    [
        "strange_param {", "strange_param", "strange_param :", "strange_param < a: 1 }",
        'strange_param: "a', "strange_param: [1, 2", "} strange { a: 1 } layer {",
    ],
)  # fmt: skip
def test_broken_custom_fields_are_errors_of_one_line(tmp_path, tail):
    prototxt, model = files(tmp_path)
    with open(prototxt, "a") as file:
        file.write(f'layer {{ name: "r" type: "ReLU" bottom: "fc" top: "r" {tail}')
    with pytest.raises(InputError, match=r"net\.prototxt") as error:
        caffe.convert(prototxt, model)
    assert "\n" not in str(error.value)


DATA = (
    'name: "data" type: "Data" top: "data" top: "label" include { phase: TEST } '
    "transform_param { scale: 0.0125 mean_value: 104 mean_value: 117 mean_value: 123 "
    "crop_size: 6 mirror: false } data_param { source: 'x' batch_size: 7 backend: LMDB }"
)


def test_declared_preprocessing_is_recorded_and_can_be_applied(tmp_path, capsys):
    prototxt, model = files(tmp_path)
    text = net_text({}, DATA, *TRUNK)
    (tmp_path / "net.prototxt").write_text(text)
    with pytest.raises(InputError, match="--input data=1,3,6,6"):
        caffe.convert(prototxt, model)
    arguments = ["caffe", prototxt, model, "--input", "data=1,3,6,6", "--out"]
    plain, applied = (str(tmp_path / f"{name}.safetensors") for name in "ab")
    assert main([*arguments, plain]) == 0
    assert "--preset prototxt applies it" in capsys.readouterr().out
    found = read_metadata(plain)["source_preprocessing"]
    assert found.pop("scale") == pytest.approx(0.0125)
    assert found == {"layer": "data", "mean": [104, 117, 123], "crop": 6}
    assert main([*arguments, applied, "--preset", "prototxt"]) == 0
    image = np.random.default_rng(0).random((6, 6, 3), np.float32)  # RGB in [0, 1]
    blob = 0.0125 * (255 * image[..., ::-1] - np.float32([104, 117, 123]))
    wanted = np.asarray(jaxgen.load(plain)(blob.astype(np.float32)))
    found = np.asarray(jaxgen.load(applied)(image))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_mean_file_has_to_be_given_and_a_deploy_file_declares_nothing(tmp_path, capsys):
    prototxt, model = files(tmp_path)
    text = DATA.replace("mean_value: 104 mean_value: 117 mean_value: 123", "mean_file: 'm.proto'")
    arguments = ["caffe", prototxt, model, "--out", str(tmp_path / "o.safetensors")]
    assert main([*arguments, "--preset", "prototxt"]) == 2
    assert "the train_val.prototxt of the same network may" in capsys.readouterr().err
    (tmp_path / "net.prototxt").write_text(net_text({}, text, *TRUNK))
    assert main([*arguments, "--preset", "prototxt", "--input", "data=1,3,6,6"]) == 2
    assert "names 'm.proto'" in capsys.readouterr().err


WRONG = {
    "lrn": 'name: "w" type: "LRN" bottom: "h" top: "h" lrn_param { local_size: 3 alpha: 0.5 k: 2 }',
    "deconvolution": 'name: "w" type: "Deconvolution" bottom: "h" top: "w" convolution_param '
    "{ num_output: 4 kernel_size: 3 stride: 2 pad: 1 dilation: 2 group: 2 }",
    "matrix": 'name: "w" type: "InnerProduct" bottom: "h" top: "w" '
    "inner_product_param { num_output: 5 transpose: true }",
}


@pytest.mark.parametrize("kind", WRONG)
def test_where_opencv_is_wrong_numpy_judges_that_layer_alone(tmp_path, kind, capsys):
    opencv()
    top = "h" if kind == "lrn" else "w"
    after = (
        f'name: "tanh" type: "TanH" bottom: "{top}" top: "t"',
        'name: "end" type: "InnerProduct" bottom: "t" top: "end" '
        "inner_product_param { num_output: 3 transpose: true }",
    )
    paths = [str(p) for p in write_net(tmp_path, net_text(X, *TRUNK[:2], WRONG[kind], *after))]
    out = tmp_path / "o.safetensors"
    assert main(["caffe", *paths, "--out", str(out), "--check"]) == 0
    text = capsys.readouterr().out
    assert "over 5 of 5 layers" in text
    assert text.replace("\n", " ").count("NumPy") >= 2


def test_a_wrong_conversion_is_still_found_by_numpy(tmp_path):
    opencv()
    paths = write_net(tmp_path, net_text(X, *TRUNK[:2], WRONG["matrix"]))
    converted = caffe.convert(*paths)
    x = np.random.default_rng(0).standard_normal((1, 3, 6, 6)).astype(np.float32)
    judge, notes = judged_activations(*paths, {"data": x})
    assert notes == {"w": "judged by NumPy: OpenCV ignores transpose"}
    blobs = caffe.Caffemodel(paths[1])
    hidden = judge["relu"][0].reshape(1, -1)
    np.testing.assert_allclose(judge["w"][0], hidden @ blobs["w[0]"] + blobs["w[1]"], rtol=2e-5)
    ours = np.asarray(converted.network(np.moveaxis(x[0], 0, -1)))
    np.testing.assert_allclose(ours, judge["w"][0][0], rtol=1e-4, atol=1e-5)
