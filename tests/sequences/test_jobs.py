"""`jaxgen train text/...`: a small text learned, files that load and decode, exact resumption."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen.sequences.recipes  # noqa: F401 -- text/... joins the table
from jaxgen.cli import main
from jaxgen.core.errors import InputError
from jaxgen.models import describe, load
from jaxgen.sequences import text
from jaxgen.sequences.corpus import corpus, vocabulary
from jaxgen.train import RECIPES, Recipe, run

SMALL = {"batch": 4, "embedding": 3, "hidden": 4, "every": 4}
JUDGED = {"judge": 0.2, "game": 0.2}
SIZES = {
    "text/writer": Recipe("seqgan", 10, options=SMALL),
    "text/seqgan": Recipe(
        "seqgan",
        10,
        options={**SMALL, **JUDGED, "rollouts": 2, "reader_steps": 2, "narrow": 200},
    ),
    "text/infiller": Recipe("maskgan", 10, options=SMALL),
    "text/maskgan": Recipe("maskgan", 10, options={**SMALL, **JUDGED}),
}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The recipes with tiny networks, and a text of a few words."""
    for name, recipe in SIZES.items():
        monkeypatch.setitem(RECIPES, name, recipe)
    rng = np.random.default_rng(0)
    parts = (["ann", "bob", "eve"], ["sees", "hears"], ["the"], ["cat", "dog"], ["."])
    lines = [" ".join(rng.choice(part) for part in parts) for _ in range(300)]
    path = tmp_path / "sentences.txt"
    path.write_text("\n".join(lines))
    return path


def test_the_names_are_those_of_the_recipes():
    assert set(SIZES) == {name for name in RECIPES if name.startswith("text/")}
    for name, recipe in SIZES.items():
        assert recipe.method == RECIPES[name].method
        assert ("game" in recipe.options) == ("game" in RECIPES[name].options)


def test_parts_of_a_text(small):
    found = corpus(small, 100)
    sentences = text.read_sentences(small)
    assert found.words.decode(found.held_out[0][:6]) == " ".join([*sentences[0], "<eos>"])
    assert found.words.decode(found.watched[0][:6]) == " ".join([*sentences[1], "<eos>"])
    assert found.words.decode(found.learned[0][:6]) == " ".join([*sentences[2], "<eos>"])
    # 60, 12 and 228 sentences of five words and an end each.
    assert [len(part) for part in found[1:4]] == [228 * 6 // 20, 12 * 6 // 20, 60 * 6 // 20]
    assert corpus(small, 5).mark != found.mark


@pytest.mark.parametrize(
    "name", ["text/writer", pytest.param("text/seqgan", marks=pytest.mark.slow)]
)
def test_a_writer_loads_and_its_words_are_with_it(name, small, tmp_path):
    paths = run(name, out=tmp_path / "a", text=small, vocabulary=8)
    path, info = paths[-1], describe(paths[-1])
    assert path.name == f"{name.replace('/', '_')}.safetensors"
    assert (info.kind, info.input_shape, info.output_shape) == ("writer", (20,), (20,))
    assert info.metadata["recipe"]["vocabulary"] == 8
    words = vocabulary(path)
    assert words == corpus(small, 8).words
    network = load(path)
    assert network.graphdef == load(paths[0]).graphdef
    drawn = network.call("sample", jax.random.key(0), 3, 20)
    assert len(words.decode(drawn[0]).split()) == 20
    held_out = corpus(small, 8).held_out
    nll = -float(jnp.mean(network.call("log_probs", jnp.asarray(held_out))))
    figures = info.metadata["figures"]
    assert figures["nll"] == pytest.approx(nll, abs=1e-4)
    assert figures["perplexity"] == pytest.approx(np.exp(nll), abs=0.01)
    assert 0 <= figures["bleu2"] <= 1


@pytest.mark.parametrize(
    "name", ["text/infiller", pytest.param("text/maskgan", marks=pytest.mark.slow)]
)
def test_an_infiller_loads_and_fills(name, small, tmp_path):
    path = run(name, out=tmp_path / "a", text=small)[-1]
    info, words = describe(path), vocabulary(path)
    assert (info.kind, info.input_shape, info.output_shape) == ("infiller", (20,), (20,))
    tokens = jnp.asarray(corpus(small, 100).held_out[:2])
    present = jnp.arange(20)[None] < jnp.asarray([[4], [8]])
    filled = load(path).call("fill", jax.random.key(0), tokens, present)
    assert bool(jnp.all((filled == tokens) | ~present))
    assert len(words.decode(filled[1]).split()) == 20
    figures = info.metadata["figures"]
    # Hardly trained: about as good as a guess among the words, which are 10.
    assert figures["nll"] == pytest.approx(np.log(10), abs=0.3)
    assert 0 <= figures["bleu2"] <= 1


def test_a_stopped_likelihood_run_ends_in_the_same_bytes(small, tmp_path):
    def stop(step, _):
        if step == 8:
            raise InterruptedError

    (straight,) = run("text/writer", out=tmp_path / "a", text=small)
    with pytest.raises(InterruptedError):
        run("text/writer", out=tmp_path / "b", text=small, progress=stop)
    (resumed,) = run("text/writer", out=tmp_path / "b", text=small)
    assert resumed.read_bytes() == straight.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["text/seqgan", "text/maskgan"])
def test_a_run_stopped_in_any_stage_ends_in_the_same_bytes(name, small, tmp_path):
    """Stages of 6, 2 and 2 updates; a stage that is done is not done again."""
    seen = []
    straight = run(name, out=tmp_path / "a", text=small, progress=lambda step, _: seen.append(step))
    assert seen == [4, 6, 8, 10]

    for at in (6, 8, 10):

        def stop(step, _, at=at):
            if step == at:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            run(name, out=tmp_path / "b", text=small, progress=stop)
    resumed = run(name, out=tmp_path / "b", text=small)
    assert [path.name for path in resumed] == [path.name for path in straight]
    for one, two in zip(straight, resumed, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert straight[0].read_bytes() != straight[1].read_bytes()


def test_likelihood_training_learns_the_grammar(small, tmp_path, monkeypatch):
    """Three choices in six tokens: the entropy is log(3 * 2 * 2) / 6 = 0.414 nats a token."""
    learned = Recipe("seqgan", 400, options={"embedding": 16, "hidden": 16, "batch": 16})
    monkeypatch.setitem(RECIPES, "text/writer", learned)
    (path,) = run("text/writer", out=tmp_path / "a", text=small)
    figures = describe(path).metadata["figures"]
    # A window may begin anywhere, so its first tokens are known less well.
    assert 0.41 < figures["nll"] < 0.7
    assert figures["bleu2"] > 0.9


def test_another_text_does_not_go_on_from_the_checkpoint(small, tmp_path):
    run("text/writer", out=tmp_path / "a", text=small)
    small.write_text(small.read_text().replace("cat", "cow"))
    with pytest.raises(InputError, match="one of another"):
        run("text/writer", out=tmp_path / "a", text=small)


def test_errors(small, tmp_path):
    with pytest.raises(InputError, match="text: expected a file with a sentence"):
        run("text/writer", out=tmp_path)
    with pytest.raises(InputError, match="text: expected none for toy2d/gan"):
        run("toy2d/gan", out=tmp_path, text=small)
    with pytest.raises(InputError, match="vocabulary: expected none for toy2d/gan"):
        run("toy2d/gan", out=tmp_path, vocabulary=50)
    with pytest.raises(InputError, match="size: expected 3 or more"):
        run("text/writer", out=tmp_path, text=small, vocabulary=2)
    with pytest.raises(InputError, match=r"lost\.txt: expected a text file"):
        run("text/writer", out=tmp_path, text=tmp_path / "lost.txt")
    for lines in (1, 2, 30):
        short = tmp_path / "short.txt"
        short.write_text("one word or two\n" * lines)
        with pytest.raises(InputError, match="a longer text"):
            run("text/writer", out=tmp_path, text=short)
    with pytest.raises(InputError, match="name: expected a network of `jaxgen train text"):
        vocabulary("toy2d/gan")
    with pytest.raises(InputError, match="jaxgen train text/writer --text FILE"):
        load("text/writer")


def test_command_line(small, tmp_path, capsys):
    command = ["train", "text/writer", "--text", str(small), "--vocabulary", "8", "--json"]
    assert main([*command, "--out", str(tmp_path / "a"), "--steps", "2", "--quiet"]) == 0
    (path,) = json.loads(capsys.readouterr().out)["files"]
    assert len(vocabulary(path).words) == 8
    assert main(["train", "text/writer", "--text", "lost.txt", "--out", str(tmp_path / "b")]) == 2
    assert "lost.txt: expected a text file in UTF-8" in capsys.readouterr().err
