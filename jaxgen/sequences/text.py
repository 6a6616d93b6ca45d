"""Text: plain files to tokens and back, and BLEU.

A line of a file is a sentence. It is put in lower case and cut into words (with apostrophes
inside them) and single punctuation marks; `<eos>` ends it, and a word that the vocabulary does
not have is `<unk>`. Sentences follow one another in one stream of tokens, which is cut into
windows of one length for models of sequences, as is done with the Penn Treebank.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgen.core.errors import expected

__all__ = ["END", "UNKNOWN", "Vocabulary", "bleu", "read_sentences", "windows"]

END, UNKNOWN = 0, 1
_SPECIAL = ("<eos>", "<unk>")
# `[^\W_]` is a letter or a digit of any script.
_WORD = re.compile(r"<unk>|[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_")


class Vocabulary(NamedTuple):
    """The words that tokens stand for: word i is token i; 0 is `<eos>` and 1 `<unk>`."""

    words: tuple[str, ...]

    @classmethod
    def build(cls, sentences: Iterable[Sequence[str]], size: int) -> Vocabulary:
        """Return the most frequent words; of equally frequent ones those first in the alphabet.

        Args:
          sentences: words, as `read_sentences` gives them.
          size: V with the two special tokens; fewer if the text has fewer words.

        Raises:
          InputError: if the size leaves room for no word, or there is none.
        """
        if size <= len(_SPECIAL):
            raise expected("size", "3 or more, two of them <eos> and <unk>", size)
        counts = Counter(word for sentence in sentences for word in sentence)
        for word in _SPECIAL:
            counts.pop(word, None)
        if not counts:
            raise expected("sentences", "at least one word", "none")
        common = sorted(counts, key=lambda word: (-counts[word], word))
        return cls((*_SPECIAL, *common[: size - len(_SPECIAL)]))

    def encode(self, sentences: Iterable[Sequence[str]]) -> np.ndarray:
        """One stream of tokens `[N]`, int32: every sentence and `<eos>` after it."""
        index = {word: i for i, word in enumerate(self.words)}
        stream = []
        for sentence in sentences:
            stream += [index.get(word, UNKNOWN) for word in sentence]
            stream.append(END)
        return np.asarray(stream, np.int32)

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the words with spaces between them.

        Raises:
          InputError: if a token is not one of this vocabulary.
        """
        tokens = [int(token) for token in tokens]
        wrong = [token for token in tokens if not 0 <= token < len(self.words)]
        if wrong:
            raise expected("tokens", f"numbers from 0 to {len(self.words) - 1}", wrong[0])
        return " ".join(self.words[token] for token in tokens)


def read_sentences(path: str | Path) -> list[list[str]]:
    """Return the words of every line of a UTF-8 file that has any.

    Raises:
      InputError: if the file cannot be read, is not text or has no words.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").lower().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise expected(str(path), "a text file in UTF-8", error) from error
    sentences = [words for words in map(_WORD.findall, lines) if words]
    if not sentences:
        raise expected(str(path), "a text file with a sentence on each line", "no words")
    return sentences


def windows(stream: np.ndarray, length: int, stride: int | None = None) -> np.ndarray:
    """Windows `[N, length]` of a stream of tokens; what is left over at its end is dropped.

    Args:
      stream: tokens `[M]`.
      length: T.
      stride: from one window's start to the next; T if none is given.

    Raises:
      InputError: if the stream is shorter than one window.
    """
    stream, stride = np.asarray(stream), length if stride is None else stride
    for name, value in (("length", length), ("stride", stride)):
        if value < 1:
            raise expected(name, "1 or more", value)
    if stream.ndim != 1 or len(stream) < length:
        raise expected("stream", f"{length} or more tokens in one dimension", list(stream.shape))
    return np.lib.stride_tricks.sliding_window_view(stream, length)[::stride].copy()


def bleu(
    candidates: Sequence[Sequence[int]] | np.ndarray,
    references: Sequence[Sequence[int]] | np.ndarray,
    order: int = 2,
) -> float:
    """BLEU-n of generated sequences, with a whole corpus as each one's references.

    Papineni, Roukos, Ward and Zhu 2002, Section 2: with counts over all candidates c,

        p_k = sum_c sum_grams min(count in c, most in any reference) / sum_c sum_grams count in c,
        BLEU = min(1, exp(1 - r / C)) * (p_1 ... p_n)^(1/n),

    where C adds up the candidates' lengths and r, for each candidate, the reference length
    nearest to its own, the shorter of two. Without smoothing: 0 if any p_k is.

    Args:
      candidates: sequences of tokens, of any lengths.
      references: likewise.
      order: n.

    Raises:
      InputError: without candidates, references or an order.
    """
    if order < 1:
        raise expected("order", "1 or more", order)
    for name, sequences in (("candidates", candidates), ("references", references)):
        if len(sequences) == 0:
            raise expected(name, "at least one sequence", "none")
    texts = [np.asarray(x, np.int64) for x in (*candidates, *references)]
    lengths = np.array([len(x) for x in texts])
    count = len(candidates)
    tokens = np.concatenate(texts)
    owner = np.repeat(np.arange(len(texts)), lengths)
    grams, places, logs = np.zeros_like(tokens), np.arange(len(tokens)), []
    for k in range(order):
        # A (k+1)-gram is a k-gram and the token after it, renumbered so that nothing overflows.
        last = places + k
        inside = last < len(tokens)
        inside[inside] = owner[last[inside]] == owner[places[inside]]
        places, grams = places[inside], grams[inside]
        pairs = np.stack([grams, tokens[places + k]], axis=1)
        grams = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
        matched, total = _clipped(grams, owner[places], count)
        if matched == 0:
            return 0.0
        logs.append(np.log(matched / total))
    return float(_brevity(lengths[:count], lengths[count:]) * np.exp(np.mean(logs)))


def _clipped(grams: np.ndarray, owner: np.ndarray, count: int) -> tuple[int, int]:
    """Count how many of the candidates' n-grams the references allow, and how many there are."""
    if not len(grams):
        return 0, 0
    (who, gram), times = np.unique(np.stack([owner, grams]), axis=1, return_counts=True)
    mine = who < count
    most = np.zeros(grams.max(initial=0) + 1, np.int64)
    np.maximum.at(most, gram[~mine], times[~mine])
    return int(np.minimum(times[mine], most[gram[mine]]).sum()), int(times[mine].sum())


def _brevity(candidates: np.ndarray, references: np.ndarray) -> float:
    """min(1, exp(1 - r / C)) from lengths."""
    choices = np.unique(references)
    away = np.abs(choices - candidates[:, None])
    nearest = choices[np.argmin(away, axis=1)]  # the first, so the shorter, of equals
    return min(1.0, float(np.exp(1 - nearest.sum() / candidates.sum())))
