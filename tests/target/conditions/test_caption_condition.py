"""log p(caption | image) against a sum over all captions, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxgen
from jaxgen.models.fashion_mnist.captioner import END, Captioner
from jaxgen.target.conditions.captions import Caption

WORDS = ("<end>", "a", "red", "dress")
MODULE = Captioner(WORDS, 3, width=4, embedding=3, hidden=5, rngs=nnx.Rngs(0))
for leaf in (MODULE.writer.w_out, MODULE.writer.embedding, MODULE.writer.w, MODULE.writer.u):
    leaf[...] = 8 * leaf[...]  # far from uniform
CAPTIONER = jaxgen.freeze(MODULE)
IMAGE = jax.random.uniform(jax.random.key(2), (28, 28, 1))


def test_probabilities_of_all_captions_add_up_to_one():
    """Of those that differ before their end: the rest is padding."""
    every = itertools.product(range(4), repeat=3)
    every = {t[: t.index(END)] if END in t else t for t in every}
    padded = jnp.asarray([[*t, *[END] * (3 - len(t))] for t in sorted(every)])
    log_p = jax.jit(jax.vmap(lambda tokens: Caption(CAPTIONER, tokens)(IMAGE)))(padded)
    assert float(jnp.exp(log_p).sum()) == pytest.approx(1, abs=1e-5)
    assert float(jnp.exp(log_p).max()) > 0.05


def test_what_follows_the_end_is_not_looked_at():
    one, two = (Caption(CAPTIONER, jnp.asarray(t))(IMAGE) for t in ([2, 0, 0], [2, 0, 3]))
    assert float(one) == float(two)


def test_the_likeliest_words_are_the_caption():
    tokens = np.asarray(MODULE(IMAGE))
    context = MODULE.look(IMAGE)
    # The first word, which is where greed is the same as the best caption of one word.
    first = [float(MODULE.log_probs(context, jnp.asarray([w, 0, 0]))[0]) for w in range(4)]
    assert tokens[0] == np.argmax(first)


def test_words_are_understood_or_refused():
    condition = Caption.of(CAPTIONER, "A red")
    assert condition.tokens.tolist() == [1, 2, END]
    assert MODULE.caption(condition.tokens) == "a red"
    condition.check((28, 28, 1))
    with pytest.raises(jaxgen.InputError, match=r"words of a, red, dress; got blue"):
        Caption.of(CAPTIONER, "a blue")
    with pytest.raises(jaxgen.InputError, match="1 to 2 words; got 3"):
        Caption.of(CAPTIONER, "a red dress")
    with pytest.raises(jaxgen.InputError, match=r"shape \[T\]"):
        Caption(CAPTIONER, jnp.zeros((1, 3), int)).check((28, 28, 1))
    with pytest.raises(jaxgen.InputError, match="from 0 to 3"):
        Caption(CAPTIONER, jnp.asarray([4, 0, 0])).check((28, 28, 1))


@pytest.mark.slow
def test_its_gradient_is_the_slope():
    condition = Caption.of(CAPTIONER, "a red")
    direction = jax.random.normal(jax.random.key(3), IMAGE.shape)
    slope = jnp.sum(jax.grad(condition)(IMAGE) * direction)
    h = 1e-2
    found = (condition(IMAGE + h * direction) - condition(IMAGE - h * direction)) / (2 * h)
    assert float(slope) == pytest.approx(float(found), rel=2e-2, abs=1e-4)
    assert abs(float(slope)) > 1e-3
