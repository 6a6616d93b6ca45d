"""MaskGAN's own measures: can a held-out discriminator tell, and how many n-grams are unique?

The paper's claim is not about perplexity, which MaskGAN loses there, but about samples that look
real and are not all alike. For one filler of blanks:

  accuracy    a network of another kind (Kim's convolutional reader), which took no part in any
              training, learns to tell windows filled by it from real ones, and is asked about
              windows that neither it nor the filler has seen: the mean of the shares it has right
              among real and among filled ones, with its standard error. A half is a perfect filler.
  unique_n    different n-grams among the filled tokens over all of them, n = 2, 3, 4

Each filler is told from real text by discriminators of its own, and the mean of their accuracies is
reported; the judges of all fillers have the same seeds and the same real windows. Imported by
`maskgan.py`; runs nothing by itself.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxgen.models.text.language_models import Reader
from jaxgen.sequences import maskgan

FILTERS = ((1, 64), (2, 64), (3, 64), (4, 32), (5, 32))


def colder(params, temperature):
    """Parameters of an infiller whose logits are divided by the temperature."""
    out = jax.tree.map(lambda x: x / temperature, params["out"])
    return nnx.State({**params, "out": out})


def unique(filled, blanks, n):
    """Share of different n-grams among those that lie in the blanks of windows `[N, T]`."""
    filled, blanks = np.asarray(filled), np.asarray(blanks)
    count = filled.shape[1] - n + 1
    grams = np.stack([filled[:, i : i + count] for i in range(n)], axis=-1)
    inside = np.all(np.stack([blanks[:, i : i + count] for i in range(n)], axis=-1), axis=-1)
    grams = grams[inside]
    return len(np.unique(grams, axis=0)) / len(grams)


def told_apart(key, fill, real, unseen, present, vocabulary, updates, batch=64):
    """Accuracy of a held-out discriminator on unseen windows, and its standard error.

    Args:
      key: of the discriminator: its start, masks and batches.
      fill: `(key, tokens [N, T], present [N, T]) -> filled tokens`.
      real: windows to learn from, which the filler was not trained on.
      unseen: windows to be asked about, and `present`, which of their tokens are given.
      present: likewise.
      vocabulary: V.
      updates: of Adam with 1e-3 at `batch` windows of each kind.
      batch: windows of each kind.
    """
    keys = jax.random.split(key, 4)
    config = maskgan.MaskGANConfig()
    real, unseen = jnp.asarray(real), jnp.asarray(unseen)
    given = maskgan.draw_mask(keys[0], real.shape, config)
    fake = fill(keys[1], real, given)
    reader = Reader(vocabulary, 32, FILTERS, rngs=nnx.Rngs(keys[2]))
    graph, params = nnx.split(reader)
    optimiser = optax.adamw(1e-3, weight_decay=1e-2)

    def loss(params, a, b, key):
        # The dropout's own random state is not used: a key is given.
        logits = nnx.merge(graph, params)(jnp.concatenate([a, b]), key)
        on_real, on_fake = jnp.split(logits, 2)
        return jnp.mean(nnx.softplus(-on_real)) + jnp.mean(nnx.softplus(on_fake))

    @jax.jit
    def step(params, state, key):
        first, second, drop = jax.random.split(key, 3)
        # Other windows' fillings than the real ones of the batch: nothing to compare pairwise.
        a = real[jax.random.randint(first, (batch,), 0, len(real))]
        b = fake[jax.random.randint(second, (batch,), 0, len(fake))]
        value, grads = jax.value_and_grad(loss)(params, a, b, drop)
        change, state = optimiser.update(grads, state, params)
        return optax.apply_updates(params, change), state, value

    state = optimiser.init(params)
    for i in range(updates):
        params, state, _ = step(params, state, jax.random.fold_in(keys[3], i))
    judge = jax.jit(nnx.merge(graph, params))
    right = np.asarray(judge(unseen) > 0), np.asarray(judge(fill(keys[1], unseen, present)) < 0)
    shares = [float(x.mean()) for x in right]
    variance = sum(p * (1 - p) / len(x) for p, x in zip(shares, right, strict=True)) / 4
    return sum(shares) / 2, variance**0.5
