"""A network that says in words what an image shows: convolutions, then an LSTM.

    log p(words | image) = sum_t log p(w_t | w_<t, c),    c = norm(W h1(image) + b)

with h1 the last convolution of `jaxgen.models.fashion_mnist.cnn` and the LSTM of
`jaxgen.models.text.language_models`, which is given c beside every word, as LRCN is (Donahue et
al. 2015, Section 5). A caption ends with token 0, which it also begins after.

Shapes: image `[..., 28, 28, 1]` in [0, 1], tokens `[..., T]` integers below V.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgen.core.errors import expected
from jaxgen.core.types import Array
from jaxgen.models.fashion_mnist.cnn import Classifier
from jaxgen.models.text.language_models import LanguageModel, LanguageModelState

__all__ = ["END", "Captioner", "tokens_of", "until_end", "words_of"]

END = 0
# A vocabulary of up to so many words is named in whole.
_FEW = 32


class Captioner(Classifier):
    """Images to captions.

    Args:
      words: the vocabulary; the first one stands for the end.
      length: T, the most words of a caption, its end included.
      width: of the convolutions, see `cnn.Classifier`.
      embedding, hidden: of the LSTM.
    """

    def __init__(
        self,
        words: Sequence[str],
        length: int = 5,
        width: int = 32,
        embedding: int = 32,
        hidden: int = 64,
        *,
        rngs: nnx.Rngs,
    ):
        super().__init__(1, width, 1, rngs=rngs)
        del self.hidden, self.logits
        self.words, self.length = tuple(words), length
        self.writer = LanguageModel(len(self.words), embedding, hidden, start=END, rngs=rngs)
        self.context = nnx.Linear(49 * 2 * width, embedding, rngs=rngs)
        # Without it an update of thousands of weights at once saturates the LSTM's gates.
        self.norm = nnx.LayerNorm(embedding, rngs=rngs)

    def look(self, image: Array) -> Array:
        """c of an image, `[..., embedding]`."""
        return self.context_of(self.spatial(image))

    def context_of(self, h1: Array) -> Array:
        """c from the last convolution."""
        return self.norm(self.context(h1.reshape((*h1.shape[:-3], -1))))

    def log_probs(self, context: Array, tokens: Array) -> Array:
        """log p(w_t | w_<t, c), `[..., T]`; 0 after the caption's end.

        Args:
          context: c, `[..., embedding]`.
          tokens: `[..., T]`; what comes after the first end is not looked at.
        """
        return until_end(tokens, self.writer.log_probs(tokens, context))

    def __call__(self, image: Array) -> Array:
        """Return the caption of each image, the likeliest word at a time: tokens `[..., T]`."""
        context = self.look(image)

        def step(
            carry: tuple[LanguageModelState, Array, Array], _: None
        ) -> tuple[tuple[LanguageModelState, Array, Array], Array]:
            state, last, ended = carry
            state = self.writer.advance(state, last, context)
            token = jnp.argmax(self.writer.logits(state), axis=-1).astype(jnp.int32)
            token = jnp.where(ended, END, token)
            return (state, token, token == END), token

        batch = image.shape[:-3]
        start = (self.writer.first(*batch), jnp.full(batch, END, jnp.int32), jnp.zeros(batch, bool))
        _, found = jax.lax.scan(step, start, None, length=self.length)
        return jnp.moveaxis(found, 0, -1)

    def vocabulary(self) -> int:
        """Return how many words there are, the end among them."""
        return len(self.words)

    def tokens(self, caption: str) -> Array:
        """Tokens `[T]` of a caption in words, ended and padded.

        Raises:
          InputError: for a word that the vocabulary does not have, or too many of them.
        """
        return tokens_of(caption, self.words, self.length)

    def caption(self, tokens: Array) -> str:
        """Return the words of tokens `[T]`, up to the end."""
        return words_of(tokens, self.words)


def until_end(tokens: Array, log_probs: Array) -> Array:
    """log p of each word `[..., T]`, 0 after the caption's first end."""
    ended = jnp.cumsum(tokens == END, axis=-1) > (tokens == END)  # before this word
    return jnp.where(ended, 0.0, log_probs)


def tokens_of(caption: str, words: Sequence[str], length: int) -> Array:
    """Tokens `[length]` of a caption in words, ended and padded.

    Args:
      caption: words with blanks between, in any case.
      words: the vocabulary, the end before all others.
      length: the most words, the end included.

    Raises:
      InputError: for a word that the vocabulary does not have, or too many of them.
    """
    given = caption.lower().split()
    known = {word: index for index, word in enumerate(words) if index != END}
    for word in given:
        if word not in known:
            few = len(known) <= _FEW
            wanted = f"words of {', '.join(known) if few else f'the {len(known)} known'}"
            close = ", ".join(difflib.get_close_matches(word, known, 3))
            raise expected("caption", wanted, word, f"Close to it: {close}" if close else "")
    if not 0 < len(given) < length:
        raise expected("caption", f"1 to {length - 1} words", len(given))
    index = [known[word] for word in given]
    return jnp.asarray(index + [END] * (length - len(index)), jnp.int32)


def words_of(tokens: Array, words: Sequence[str]) -> str:
    """Return the words of tokens `[T]`, up to the end."""
    found = [int(t) for t in np.asarray(tokens)]
    return " ".join(words[t] for t in found[: (*found, END).index(END)])
