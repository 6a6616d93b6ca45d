"""The posterior over sequences of tokens of which some were observed.

    p(y | o) proportional to p(y) prod_{t observed} 1[y_t = o_t] L(y)

with p(y) = prod_t p(y_t | y_<t) a language model's and L an optional likelihood of the whole
sequence: a classifier, a discriminator's odds, a constraint.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import as_data, pytree
from jaxgen.core.types import Array, ArrayTree

__all__ = [
    "Autoregressive",
    "TokenPosterior",
    "check_model",
    "opening",
    "tempered",
    "vocabulary_of",
]


@runtime_checkable
class Autoregressive(Protocol):
    """A model that writes tokens one after another, as a pytree of its weights.

    `jaxgen.models.text.language_models.LanguageModel` is one. `start` is the token after which
    every sequence begins; it is not part of the sequence.
    """

    start: Any

    def first(self, *batch: int) -> ArrayTree:
        """Return the state before the start token."""
        ...

    def advance(self, state: ArrayTree, token: Array, /) -> ArrayTree:
        """Return the state after one more token."""
        ...

    def logits(self, state: ArrayTree, /) -> Array:
        """Return the logits of the next token, `[V]`."""
        ...


@pytree
class TokenPosterior:
    """log p(y) + log L(y) on the sequences that agree with what was observed, as data.

    Attributes:
      writer: an `Autoregressive` model.
      tokens: `[T]` integers; those that were not observed are ignored.
      observed: `[T]`, True where the token is known.
      log_likelihood: tokens `[T]` -> log L, a scalar; a callable pytree or a plain function
        (define it once: a new function compiles anew). None for L = 1.
    """

    writer: Any
    tokens: Array
    observed: Array
    log_likelihood: Any = None

    def __post_init__(self) -> None:
        if callable(self.log_likelihood):
            object.__setattr__(self, "log_likelihood", as_data(self.log_likelihood))

    @property
    def length(self) -> int:
        """T."""
        return self.tokens.shape[0]

    @property
    def vocabulary(self) -> int:
        """V; nothing is computed."""
        return vocabulary_of(self.writer)

    def opening(self) -> ArrayTree:
        """Return the model's state before the first token, that is after the start token."""
        return opening(self.writer)

    def next_token(self, state: ArrayTree) -> Array:
        """log p of each token that may come next, `[V]`."""
        return jax.nn.log_softmax(self.writer.logits(state))

    def continuation(self, state: ArrayTree, tokens: Array, t: Array | int) -> Array:
        """log p(y_s | y_<s) for s >= t, 0 before: `[T]`.

        Args:
          state: the model's after y_<t.
          tokens: `[T]`.
          t: from where on, a traced number.
        """

        def step(s: Array, carry: tuple[ArrayTree, Array]) -> tuple[ArrayTree, Array]:
            state, found = carry
            found = found.at[s].set(self.next_token(state)[tokens[s]])
            return self.writer.advance(state, tokens[s]), found

        found = jnp.zeros(self.length, jnp.float32)
        return jax.lax.fori_loop(t, self.length, step, (state, found))[1]

    def log_prior(self, tokens: Array) -> Array:
        """log p(y) under the model alone."""
        return self.continuation(self.opening(), tokens, 0).sum()

    def log_odds(self, tokens: Array) -> Array:
        """log L(y); 0 without a likelihood."""
        if self.log_likelihood is None:
            return jnp.zeros((), jnp.float32)
        return jnp.asarray(self.log_likelihood(tokens), jnp.float32)

    def __call__(self, tokens: Array, beta: Array | float = 1.0) -> Array:
        """log p(y) + beta log L(y), -inf where y contradicts what was observed."""
        agrees = jnp.all(~self.observed | (tokens == self.tokens))
        value = self.log_prior(tokens) + tempered(beta, self.log_odds(tokens))
        return jnp.where(agrees, value, -jnp.inf)

    def check(self) -> None:
        """Raise `InputError` where model, tokens and likelihood do not fit each other."""
        check_model("writer", self.writer)
        tokens, observed = np.asarray(self.tokens), np.asarray(self.observed)
        if tokens.ndim != 1 or not tokens.size or not np.issubdtype(tokens.dtype, np.integer):
            got = f"{tokens.dtype} of shape {list(tokens.shape)}"
            raise expected("tokens", "integers [T] of one sequence", got)
        if observed.shape != tokens.shape or observed.dtype != np.bool_:
            got = f"{observed.dtype} of shape {list(observed.shape)}"
            raise expected("observed", f"booleans [{tokens.size}], one for each token", got)
        if observed.all():
            hint = "log p of the sequence is posterior.log_prior(tokens)"
            raise expected("observed", "at least one hidden token", "none", hint)
        known = tokens[observed]
        if known.size and not (known.min() >= 0 and known.max() < self.vocabulary):
            wanted = f"observed tokens from 0 to {self.vocabulary - 1}"
            raise expected("tokens", wanted, f"{known.min()} to {known.max()}")
        if self.log_likelihood is None:
            return
        if not callable(self.log_likelihood):
            raise expected("log_likelihood", "None or a function of tokens", self.log_likelihood)
        example = jax.ShapeDtypeStruct(tokens.shape, jnp.int32)
        out = jax.eval_shape(self.log_odds, example)
        if out.shape != ():
            raise expected("log_likelihood", "a scalar for one sequence", f"shape {out.shape}")


def tempered(beta: Array | float, log_likelihood: Array) -> Array:
    """beta log L, and 0 at beta = 0 even where L is 0."""
    beta = jnp.asarray(beta, jnp.float32)
    return jnp.where(beta == 0, 0.0, beta * log_likelihood)


def opening(model: Autoregressive) -> ArrayTree:
    """Return a model's state before the first token, that is after the start token."""
    return model.advance(model.first(), jnp.asarray(model.start, jnp.int32))


def vocabulary_of(model: object) -> int:
    """V; nothing is computed."""
    return jax.eval_shape(lambda model: model.logits(opening(model)), model).shape[-1]


def check_model(name: str, model: object) -> None:
    """Raise `InputError` for what is no `Autoregressive` pytree."""
    if not isinstance(model, Autoregressive):
        wanted = "a model with start, first, advance and logits"
        raise expected(name, wanted, type(model).__name__)
    leaves = jax.tree.leaves(model)
    if any(not isinstance(leaf, jax.Array | np.ndarray | float | int) for leaf in leaves):
        hint = "Make its class an nnx.Module or a jaxgen.core.pytree"
        raise expected(name, "a pytree of arrays", type(model).__name__, hint)
