"""LRCN's captioner from converted files: against NumPy, as a condition, and what is refused."""

import itertools
import runpy
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.models.caffe.lrcn import LRCN
from jaxgen.models.fashion_mnist.captioner import END, tokens_of
from weights_convert import caffe
from weights_convert.caffe.random_blobs import random_blobs, write_caffemodel
from weights_convert.caffe.wiring import wire_up

CONVERT = Path(__file__).resolve().parents[2] / "weights_convert"
WORDS = ("<EOS>", "a", "black", "white", "cat", "and", "<unk>")
SIZE, HIDDEN, LENGTH = 5, 4, 6
# The layers of the published word predictor, and its one time step for 20 streams.
TEXT = f"""
input: "cont_sentence"   input_shape {{ dim: 1 dim: 20 }}
input: "input_sentence"  input_shape {{ dim: 1 dim: 20 }}
input: "image_features"  input_shape {{ dim: 20 dim: {SIZE} }}
layer {{ name: "embedding" type: "Embed" bottom: "input_sentence" top: "embedded"
  embed_param {{ input_dim: {len(WORDS)} num_output: 3 bias_term: false }} }}
layer {{ name: "lstm1" type: "LSTM" bottom: "embedded" bottom: "cont_sentence" top: "lstm1"
  recurrent_param {{ num_output: {HIDDEN} }} }}
layer {{ name: "lstm2" type: "LSTM" bottom: "lstm1" bottom: "cont_sentence"
  bottom: "image_features" top: "lstm2" recurrent_param {{ num_output: {HIDDEN} }} }}
layer {{ name: "predict" type: "InnerProduct" bottom: "lstm2" top: "predict"
  inner_product_param {{ axis: 2 num_output: {len(WORDS)} }} }}
layer {{ name: "probs" type: "Softmax" bottom: "predict" top: "probs"
  softmax_param {{ axis: 2 }} }}
layer {{ name: "log_prob" type: "Log" bottom: "probs" top: "log_prob" }}
"""
SIDE = 4
MATRIX = jax.random.normal(jax.random.key(5), (SIDE * SIDE * 3, SIZE))


def features(image):
    """A stand-in for CaffeNet: image -> [SIZE]."""
    return 2 * jnp.tanh(0.5 * image.reshape(-1) @ MATRIX)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(prototxt, caffemodel, its blobs) of a small predictor that is far from uniform."""
    folder = tmp_path_factory.mktemp("lrcn")
    prototxt, caffemodel = folder / "lrcn.prototxt", folder / "lrcn.caffemodel"
    prototxt.write_text(TEXT)
    blobs = random_blobs(wire_up(caffe.read_prototxt(prototxt)).plans, 3)
    blobs = {name: [np.float32(3) * a for a in arrays] for name, arrays in blobs.items()}
    write_caffemodel(caffemodel, blobs)
    return prototxt, caffemodel, blobs


@pytest.fixture(scope="module")
def captioner(files):
    return LRCN.of(converted(files, "predict").graph, features, WORDS, LENGTH)


def converted(files, output):
    return caffe.convert(*files[:2], outputs=[output])


def by_numpy(blobs, context, tokens):
    """log p(w_t | w_<t, f) `[T, V]`, by Caffe's LSTM in loops and LRCN's own feeding."""
    lstm = SimpleNamespace(**runpy.run_path(str(CONVERT / "caffe_numpy.py"))).lstm
    before = np.asarray([END, *tokens[:-1]])[:, None]
    marks = np.float32([[0], *[[1]] * (len(tokens) - 1)])
    h = lstm(blobs["embedding"][0][before], marks, blobs["lstm1"])
    h = lstm(h, marks, blobs["lstm2"], np.asarray(context)[None])
    logits = (h @ blobs["predict"][0].T + blobs["predict"][1])[:, 0]
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def generator(z):
    return jax.nn.sigmoid(z).reshape(SIDE, SIDE, 3)


def image(seed=0):
    return jax.random.uniform(jax.random.key(seed), (SIDE, SIDE, 3))


def test_log_probabilities_equal_numpy(files, captioner):
    context = captioner.look(image())
    tokens = captioner.tokens("A black and white cat")
    assert tokens.tolist() == [1, 2, 5, 3, 4, END]
    expected = by_numpy(files[2], context, tokens.tolist())[np.arange(LENGTH), tokens]
    np.testing.assert_allclose(captioner.log_probs(context, tokens), expected, rtol=2e-5, atol=2e-5)
    assert float(np.ptp(expected)) > 1  # not all alike
    condition = jaxgen.Caption.of(captioner, "a black and white cat")
    assert float(condition(image())) == pytest.approx(expected.sum(), rel=1e-5)


def test_padding_takes_no_part(files, captioner):
    context, short = captioner.look(image()), captioner.tokens("a cat")
    assert short.tolist() == [1, 4, END, END, END, END]
    expected = by_numpy(files[2], context, [1, 4, END])[np.arange(3), [1, 4, END]]
    np.testing.assert_allclose(
        captioner.log_probs(context, short), [*expected, 0, 0, 0], rtol=2e-5, atol=2e-5
    )


def test_both_outputs_of_the_deploy_file_serve(files, captioner):
    other = LRCN.of(converted(files, "log_prob").network, features, WORDS, LENGTH)
    one, two = (jaxgen.Caption.of(c, "a white cat")(image()) for c in (captioner, other))
    assert float(one) == pytest.approx(float(two), rel=1e-5)


def test_the_published_definition_fits(tmp_path):
    """The authors' file with smaller layers."""
    published = SimpleNamespace(**runpy.run_path(str(CONVERT / "caffe_files.py"))).weights(
        "caffe_definitions", "lrcn_word_to_preds.deploy.prototxt"
    )
    text = published.read_text().replace("8801", str(len(WORDS))).replace("1000", str(SIZE))
    assert text != published.read_text()
    (tmp_path / "small.prototxt").write_text(text)
    blobs = random_blobs(wire_up(caffe.read_prototxt(tmp_path / "small.prototxt")).plans, 4)
    write_caffemodel(tmp_path / "small.caffemodel", blobs)
    small = (tmp_path / "small.prototxt", tmp_path / "small.caffemodel")
    captioner = LRCN.of(converted(small, "predict").graph, features, WORDS)
    context, tokens = captioner.look(image()), captioner.tokens("a black and white cat")
    expected = by_numpy(blobs, context, tokens[:6].tolist())[np.arange(6), tokens[:6]]
    found = captioner.log_probs(context, tokens)
    np.testing.assert_allclose(found, [*expected, *[0] * 14], rtol=2e-5, atol=2e-5)


def test_the_greedy_caption_is_numpys(files, captioner):
    captions = set()
    for seed in range(4):
        found = []
        for t in range(LENGTH):
            log_p = by_numpy(files[2], captioner.look(image(seed)), [*found, END])[t]
            found.append(END if END in found else int(np.argmax(log_p)))
        assert jax.jit(captioner)(image(seed)).tolist() == found
        captions.add(captioner.caption(found))
    assert captioner.caption([1, 4, END, 2]) == "a cat"
    assert captioner.caption([1] * LENGTH) == " ".join("a" * LENGTH)


def test_probabilities_of_all_captions_add_up_to_one(captioner):
    every = itertools.product(range(len(WORDS)), repeat=3)
    every = {t[: t.index(END) + 1] if END in t else t for t in every}
    padded = jnp.asarray([[*t, *[END] * (3 - len(t))] for t in sorted(every)])
    context = captioner.look(image())
    log_p = jax.jit(jax.vmap(lambda tokens: captioner.log_probs(context, tokens).sum()))(padded)
    assert float(jnp.exp(log_p).sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_its_gradient_is_the_slope(captioner):
    condition = jaxgen.Caption.of(captioner, "a black cat")
    slope = jax.grad(condition)(image())
    direction = jax.random.normal(jax.random.key(9), slope.shape)
    h = 1e-2
    found = (condition(image() + h * direction) - condition(image() - h * direction)) / (2 * h)
    assert float(jnp.sum(slope * direction)) == pytest.approx(float(found), rel=2e-2)
    assert float(jnp.abs(slope).max()) > 1e-2


def test_a_posterior_of_a_caption_can_be_sampled(captioner):
    """The caption fits draws better than prior draws."""
    prior = jaxgen.Gaussian.standard(SIDE * SIDE * 3)
    condition = 5.0 * jaxgen.Caption.of(captioner, "a black cat")
    posterior = jaxgen.Posterior(prior, generator, condition)
    kernel, betas = jaxgen.kernels.HMC(4), np.linspace(0, 1, 6)
    result = jaxgen.ais(jax.random.key(1), posterior, kernel, betas, num_chains=8, step_size=0.2)
    first = jax.vmap(prior.sample)(jax.random.split(jax.random.key(2), 8))
    fit = jax.vmap(posterior.log_likelihood)
    assert np.isfinite(result.log_z)
    assert float(fit(result.position).mean()) > float(fit(first).mean()) + 1


def test_another_caption_compiles_nothing(captioner):
    traces = []

    @jax.jit
    def log_p(condition, x):
        traces.append(None)
        return condition(x)

    values = {float(log_p(jaxgen.Caption.of(captioner, w), image())) for w in ("a cat", "white")}
    assert len(traces) == 1
    assert len(values) == 2


def test_what_cannot_be_a_caption_is_refused(captioner):
    with pytest.raises(jaxgen.InputError, match=r"<unk>; got cats\. Close to it: cat"):
        captioner.tokens("a black cats")
    many = ["<EOS>", *(f"word{i}" for i in range(40))]
    with pytest.raises(jaxgen.InputError, match=r"the 40 known; got word\. Close to it: word"):
        tokens_of("word", many, 4)
    with pytest.raises(jaxgen.InputError, match="got <eos>"):
        captioner.tokens("a <EOS>")
    with pytest.raises(jaxgen.InputError, match="1 to 5 words; got 6"):
        captioner.tokens("a cat and a black cat")
    with pytest.raises(jaxgen.InputError, match="1 to 5 words; got 0"):
        captioner.tokens(" ")
    with pytest.raises(jaxgen.InputError, match="from 0 to 6"):
        jaxgen.Caption(captioner, jnp.asarray([7, 0])).check((SIDE, SIDE, 3))
    with pytest.raises(jaxgen.InputError, match="method draw"):
        captioner.call("draw")


def test_what_cannot_be_a_captioner_is_refused(files, captioner):
    graph = converted(files, "predict").graph
    with pytest.raises(jaxgen.InputError, match="words: expected 7, the end among them"):
        LRCN.of(graph, features, WORDS[:-1])
    with pytest.raises(jaxgen.InputError, match="'cat' twice"):
        LRCN.of(graph, features, (*WORDS[:-1], "cat"))
    with pytest.raises(jaxgen.InputError, match="length: expected room"):
        LRCN.of(graph, features, WORDS, 1)
    with pytest.raises(jaxgen.InputError, match="got probabilities"):
        LRCN.of(converted(files, "probs").graph, features, WORDS)
    with pytest.raises(jaxgen.InputError, match="inputs cont_sentence"):
        LRCN.of(jaxgen.models.caffe.graph.Graph(ADDS), features, WORDS)
    wrong = jaxgen.Caption.of(LRCN.of(graph, jnp.ravel, WORDS), "a cat")
    with pytest.raises(jaxgen.InputError, match=r"features: expected shape \[5\]"):
        wrong.check((SIDE, SIDE, 3))


ADDS = {
    "format": "caffe-graph-1",
    "name": "adds",
    "inputs": [{"name": "data", "shape": [1, 3], "batch_axis": 0}],
    "layers": [{"name": "relu", "type": "ReLU", "bottoms": ["data"], "tops": ["out"]}],
    "outputs": ["out"],
}
