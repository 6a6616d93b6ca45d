"""LRCN's captioner (Donahue et al. 2015, Section 5), put together from converted networks.

    log p(words | image) = sum_t log p(w_t | w_<t, f(image))

with f an image network (CaffeNet's fc8 in the paper) and p the word predictor of
`lrcn_word_to_preds.deploy.prototxt`: two LSTMs, the second of which is given f beside every
word. Word 0 ends a caption and stands before its first word, where the continuation mark is 0.

    converted = weights_convert.caffe.convert(PROTOTXT, CAFFEMODEL, outputs=["predict"])
    captioner = LRCN.of(converted.graph, caffenet, ["<EOS>", *lines_of_the_vocabulary])
    condition = jaxgen.Caption.of(captioner, "a black and white cat")

The deploy file's input has room for one time step, since Caffe carries the LSTMs' state from
call to call. Here a call is given the whole caption, of whatever length is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgen.core.errors import expected
from jaxgen.core.pytree import as_data, pytree, static
from jaxgen.core.types import Array
from jaxgen.models.caffe.graph import Graph
from jaxgen.models.fashion_mnist.captioner import END, tokens_of, until_end, words_of
from jaxgen.target.networks import Network, freeze

__all__ = ["LRCN"]

_MARKS, _WORDS, _FEATURES = "cont_sentence", "input_sentence", "image_features"


@pytree
class LRCN:
    """An image network and a word predictor as a captioner, for `jaxgen.Caption`.

    Made by `LRCN.of`. Networks are data: other weights of the same shapes compile nothing.

    Attributes:
      predictor: the frozen graph: marks `[T]`, words `[T]` and features `[F]` -> `[T, V]`.
      features: image -> `[F]`.
      words: the vocabulary; the first one stands for the end.
      length: T, the most words of a caption, its end included.
      size: F.
      order: which of (marks, words, features) the graph takes first, second and third.
    """

    predictor: Network
    features: Any
    words: tuple[str, ...] = static()
    length: int = static()
    size: int = static()
    order: tuple[int, int, int] = static()

    @classmethod
    def of(
        cls,
        predictor: Graph | Network,
        features: Callable[[Array], Array],
        words: Sequence[str],
        length: int = 20,
    ) -> LRCN:
        """Make the adapter of a converted word predictor.

        Args:
          predictor: the converted graph, or it frozen. Its output is the blob "predict"
            (`[T, V]` logits) or "log_prob". The first is the better one: log_prob is the
            logarithm of a softmax, which is -inf for words that float32 rounds to nothing.
          features: a frozen network, image -> `[F]`, such as `caffenet.at("fc8")`, or any
            function; preprocessing is its own affair.
          words: `"<EOS>"` and then the lines of the vocabulary file, in order.
          length: T; LRCN's own is 20.

        Raises:
          InputError: if the graph is no such predictor, or the vocabulary does not fit it.
        """
        frozen = predictor if isinstance(predictor, Network) else freeze(predictor)
        graph = nnx.merge(frozen.graphdef, frozen.params)
        if not isinstance(graph, Graph):
            raise expected("predictor", "a converted graph", type(graph).__name__)
        names = graph.input_names
        if sorted(names) != sorted((_MARKS, _WORDS, _FEATURES)):
            wanted = f"inputs {_MARKS}, {_WORDS} and {_FEATURES}"
            raise expected("predictor", wanted, ", ".join(names))
        if length < 2:
            raise expected("length", "room for a word and the end, at least 2", length)
        words = tuple(words)
        if len(set(words)) != len(words):
            twice = next(w for i, w in enumerate(words) if w in words[:i])
            raise expected("words", "every word once", f"{twice!r} twice")
        first, second, third = ((_MARKS, _WORDS, _FEATURES).index(name) for name in names)
        size = int(np.prod(graph.sample_shapes[names.index(_FEATURES)]))
        made = cls(frozen, as_data(features), words, int(length), size, (first, second, third))
        made._check(graph)
        return made

    def call(self, method: str, *args: Any) -> Any:
        """Another method, as `Network.call` does it."""
        if method.startswith("_") or not callable(getattr(self, method, None)):
            raise expected("captioner", f"one with a method {method}", type(self).__name__)
        return getattr(self, method)(*args)

    def look(self, image: Array) -> Array:
        """f of one image, `[F]`.

        Raises:
          InputError: if it is not of the size that the predictor was trained with.
        """
        found = self.features(image)
        if found.shape != (self.size,):
            raise expected("features", f"shape [{self.size}] for one image", found.shape)
        return found

    def log_probs(self, context: Array, tokens: Array) -> Array:
        """log p(w_t | w_<t, f), `[T]`; 0 after the caption's end.

        Args:
          context: f, `[F]`.
          tokens: `[T]`, of any length; what comes after the first end is not looked at.
        """
        log_p = self._predict(context, tokens)
        chosen = jnp.take_along_axis(log_p, tokens[:, None], axis=1)[:, 0]
        return until_end(tokens, chosen)

    def __call__(self, image: Array) -> Array:
        """Return the caption of one image, the likeliest word at a time: tokens `[T]`."""
        context = self.look(image)

        def step(t: Array, tokens: Array) -> Array:
            word = jnp.argmax(self._predict(context, tokens)[t])
            ended = (t > 0) & (tokens[t - 1] == END)
            return tokens.at[t].set(jnp.where(ended, END, word).astype(tokens.dtype))

        return jax.lax.fori_loop(0, self.length, step, jnp.full(self.length, END, jnp.int32))

    def vocabulary(self) -> int:
        """V, the end among them."""
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

    def _predict(self, context: Array, tokens: Array) -> Array:
        """log p(. | w_<t, f) at every step, `[T, V]`."""
        before = jnp.concatenate([jnp.full(1, END, tokens.dtype), tokens[:-1]])
        marks = (jnp.arange(tokens.shape[0]) > 0).astype(context.dtype)
        inputs = (marks, before, context)
        # Logits, or their log-softmax, which a second one leaves as it is.
        return jax.nn.log_softmax(self.predictor(*(inputs[i] for i in self.order)))

    def _check(self, graph: Graph) -> None:
        outputs = json.loads(graph.description)["outputs"]
        if len(outputs) != 1:
            raise expected("predictor", "one output", ", ".join(outputs))
        made_by = {top: name for name, tops in graph.layer_tops.items() for top in tops}
        if graph.layer_types[made_by[outputs[0]]] == "Softmax":
            hint = 'Convert with outputs=["predict"]'
            raise expected("predictor", "logits or log probabilities", "probabilities", hint)
        context = jax.ShapeDtypeStruct((self.size,), np.float32)
        tokens = jax.ShapeDtypeStruct((self.length,), np.int32)
        out = jax.eval_shape(self._predict, context, tokens)
        if out.shape != (self.length, len(self.words)):
            wanted = f"{out.shape[-1]}, the end among them, as the predictor knows"
            raise expected("words", wanted, len(self.words))
