"""Text files to tokens and back, and BLEU against counts by hand and another implementation."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from jaxgen.core.errors import InputError
from jaxgen.sequences.text import END, UNKNOWN, Vocabulary, bleu, read_sentences, windows

LINES = "The cat sat.\n\n  \nThe dog's bone, the CAT!\nÉtude l’été\n"
SENTENCES = [
    ["the", "cat", "sat", "."],
    ["the", "dog's", "bone", ",", "the", "cat", "!"],
    ["étude", "l’été"],
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(LINES, encoding="utf-8")
    return path


def test_lines_are_cut_into_words_and_marks(path):
    assert read_sentences(path) == SENTENCES


def test_words_are_ranked_by_frequency_then_the_alphabet():
    words = Vocabulary.build(SENTENCES, 7).words
    assert words == ("<eos>", "<unk>", "the", "cat", "!", ",", ".")
    assert len(Vocabulary.build(SENTENCES, 100).words) == 2 + 10  # no more than there are


def test_text_comes_back_from_its_tokens():
    vocabulary = Vocabulary.build(SENTENCES, 100)
    stream = vocabulary.encode(SENTENCES)
    assert stream.dtype == np.int32
    assert vocabulary.decode(stream).split(" <eos>")[:-1] == [
        " " * bool(i) + " ".join(words) for i, words in enumerate(SENTENCES)
    ]
    np.testing.assert_array_equal(vocabulary.encode([["the", "xylophone"]]), [2, UNKNOWN, END])
    assert UNKNOWN not in stream


def test_tokens_of_a_text_that_has_unk_already():
    """As the Penn Treebank's files do: the special words are never counted twice."""
    vocabulary = Vocabulary.build([["<unk>", "a", "<unk>"], ["b", "a"]], 10)
    assert vocabulary.words == ("<eos>", "<unk>", "a", "b")
    np.testing.assert_array_equal(vocabulary.encode([["<unk>", "a"]]), [UNKNOWN, 2, END])


def test_windows_are_consecutive_and_the_rest_is_dropped():
    np.testing.assert_array_equal(windows(np.arange(8), 3), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(windows(np.arange(5), 3, 1), [[0, 1, 2], [1, 2, 3], [2, 3, 4]])
    assert windows(np.arange(3), 3).shape == (1, 3)


def test_what_cannot_be_read_is_named(tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n\n")
    with pytest.raises(InputError, match=r"empty.txt: expected .* got no words"):
        read_sentences(empty)
    with pytest.raises(InputError, match=r"absent.txt: expected a text file"):
        read_sentences(tmp_path / "absent.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(InputError, match=r"binary: expected a text file in UTF-8"):
        read_sentences(tmp_path / "binary")


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="size: expected 3 or more"):
        Vocabulary.build(SENTENCES, 2)
    with pytest.raises(InputError, match="sentences: expected at least one word"):
        Vocabulary.build([["<unk>"]], 5)
    with pytest.raises(InputError, match="stream: expected 4 or more"):
        windows(np.arange(3), 4)
    with pytest.raises(InputError, match="stride: expected 1"):
        windows(np.arange(3), 2, 0)
    with pytest.raises(InputError, match=r"tokens: expected numbers from 0 to 11; got 12"):
        Vocabulary.build(SENTENCES, 100).decode([3, 12])
    with pytest.raises(InputError, match="candidates: expected at least one"):
        bleu([], [[1]])
    with pytest.raises(InputError, match="references: expected at least one"):
        bleu([[1]], np.zeros((0, 3), int))
    with pytest.raises(InputError, match="order"):
        bleu([[1]], [[1]], 0)


def test_bleu_by_hand():
    # Papineni et al.'s example: "the" seven times, twice in a reference; no bigram is right.
    the = [[1] * 7]
    references = [[1, 2, 3, 4, 1, 5], [6, 3, 7, 2, 4, 1, 5]]
    assert bleu(the, references, 1) == pytest.approx(2 / 7)
    assert bleu(the, references, 2) == 0.0
    # Unigrams 3 of 4, bigrams 1 of 3 (2 3), and shorter than its only reference.
    got = bleu([[1, 2, 3, 9]], [[2, 3, 1, 4, 5]], 2)
    assert got == pytest.approx(math.exp(1 - 5 / 4) * math.sqrt(3 / 4 * 1 / 3))
    # Between lengths 3 and 5 the nearest to 4 is the shorter: no penalty.
    assert bleu([[1, 2, 3, 9]], [[1, 2, 3], [0] * 5], 1) == pytest.approx(3 / 4)
    # Two candidates' counts are added up, not averaged: (2 + 0) of (2 + 4).
    assert bleu([[1, 2], [7, 7, 7, 7]], [[1, 2], [3, 3, 3, 3]], 1) == pytest.approx(2 / 6)


def corpus_bleu(candidates, references, order):
    """nltk's definition without smoothing, with fractions and counters."""
    numerator, denominator = Counter(), Counter()
    shorter = longer = 0
    for candidate in candidates:
        for n in range(1, order + 1):
            counts = Counter(zip(*(candidate[i:] for i in range(n)), strict=False))
            most = Counter()
            for reference in references:
                most |= Counter(zip(*(reference[i:] for i in range(n)), strict=False))
            numerator[n] += sum((counts & most).values())
            denominator[n] += max(1, sum(counts.values()))
        longer += len(candidate)
        shorter += min(
            (len(reference) for reference in references),
            key=lambda size: (abs(size - len(candidate)), size),
        )
    if not all(numerator[n] for n in range(1, order + 1)):
        return 0.0
    logs = [math.log(Fraction(numerator[n], denominator[n])) for n in range(1, order + 1)]
    penalty = 1.0 if longer > shorter else math.exp(1 - shorter / longer)
    return penalty * math.exp(sum(logs) / order)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_bleu_is_the_definition_s(order, seed):
    rng = np.random.default_rng(seed)

    def texts(count, low):
        return [
            rng.zipf(1.4, size=rng.integers(low, 12)).clip(max=2**40).tolist() for _ in range(count)
        ]

    candidates, references = texts(9, 4), texts(14, 0)
    assert bleu(candidates, references, order) == pytest.approx(
        corpus_bleu(candidates, references, order), rel=1e-12
    )


def test_bleu_of_arrays_and_of_a_text_against_itself():
    text = np.random.default_rng(0).integers(0, 5, (20, 8))
    assert bleu(text, text, 4) == pytest.approx(1.0)
    assert bleu(text, text[::-1], 2) == bleu(text.tolist(), text.tolist(), 2)
    assert bleu([[]], text, 2) == 0.0
    assert bleu([[1]], text, 2) == 0.0
