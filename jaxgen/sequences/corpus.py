"""A text of one's own, cut into parts to learn from, to watch, and to measure with."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgen.core.errors import expected
from jaxgen.models.registry import SEQUENCE, describe
from jaxgen.sequences import text

__all__ = ["Corpus", "corpus", "vocabulary"]


class Corpus(NamedTuple):
    """A text in windows `[N, 20]` of tokens: to learn, to decide when to stop, held out."""

    words: text.Vocabulary
    learned: np.ndarray
    watched: np.ndarray
    held_out: np.ndarray
    about: str

    @property
    def mark(self) -> str:
        """Return what distinguishes this text and vocabulary from others, for checkpoints."""
        found = hashlib.sha256("\n".join(self.words.words).encode())
        for part in (self.learned, self.watched, self.held_out):
            found.update(part.tobytes())
        return found.hexdigest()


def corpus(path: str | Path, size: int) -> Corpus:
    """Return a text in its three parts, with the words of the first as vocabulary.

    Args:
      path: a file with a sentence on each line.
      size: V at most, with `<eos>` and `<unk>`.

    Raises:
      InputError: if the file cannot be read or a part is shorter than a window.
    """
    sentences = text.read_sentences(path)
    rest = [sentence for i, sentence in enumerate(sentences) if i % 5]
    kept = [sentence for i, sentence in enumerate(rest) if i % 20]
    if not kept:
        raise expected(str(path), "a longer text, of 100 sentences or so", len(sentences))
    words = text.Vocabulary.build(kept, size)
    streams = [words.encode(part) for part in (kept, rest[::20], sentences[::5])]
    shortest = min(map(len, streams))
    if shortest < SEQUENCE:
        wanted = f"a longer text: {SEQUENCE} words or more in each part, learned, watched, held out"
        raise expected(str(path), wanted, f"a part of {shortest}")
    about = f"{Path(path).name}, {len(sentences)} sentences of which every fifth is held out"
    learned, watched, held_out = (text.windows(stream, SEQUENCE) for stream in streams)
    return Corpus(words, learned, watched, held_out, about)


def vocabulary(name: str | Path) -> text.Vocabulary:
    """Return the words of a trained network's tokens: `vocabulary(path).decode(tokens)`.

    Args:
      name: as given to `jaxgen.load`.

    Raises:
      InputError: if its metadata have no words.
    """
    words = describe(name).metadata.get("words")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise expected("name", "a network of `jaxgen train text/...`", str(name))
    return text.Vocabulary(tuple(words))
