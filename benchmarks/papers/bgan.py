"""Do importance weights train a discrete generator better than plain policy gradients do?

Boundary-seeking GANs on things with no gradient: Fashion-MNIST's images cut at grey 128, and
words of characters. Both forms, "importance" and "reinforce", see the same batches and start
from the same weights, and have the same number of updates.

- Images, judged by a small classifier trained here on binarised images (its accuracy on
  binarised test images is printed): `top`, the mean of the largest class probability;
  `classes`, the exponential of the entropy of the mean prediction, 10 where all classes occur
  equally; `score`, exp(E KL(p(y|x) || p(y))), the inception score with this classifier.
  Binarised test images have theirs beside them. `pixels`: the share that is on.
- Words: of a small grammar (two or three syllables of a consonant and a vowel, each of few), or
  the words of a file (`--text`), padded with blanks to one length. `valid`: the share of
  samples that are words of the data; `different`: how many of them occur among 2 000 samples;
  `bigrams`: the total variation distance between the two distributions of pairs of neighbours.

Monitors: the effective number of samples `ess`, of M, and the running `log_z`, at eight places
of the run.

  python benchmarks/papers/bgan.py --figure bgan.png
"""

from __future__ import annotations

import itertools
import re
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxgen import data
from jaxgen.models.fashion_mnist.mlp import MLP
from jaxgen.models.fashion_mnist.vae import Decoder
from jaxgen.plotting.pictures import class_grid
from jaxgen.train import bgan
from jaxgen.train.loop import train_loop

LETTERS = " abcdefghijklmnopqrstuvwxyz"
PLACES = 8


class Ratio(nnx.Module):
    """Two hidden layers on the flattened sample, one free output."""

    def __init__(self, size, *, rngs):
        self.size = size
        self.net = MLP((size, 256, 128, 1), "leaky_relu", rngs=rngs)

    def __call__(self, x):
        """Return one number for each sample: `[N]`."""
        return self.net(x.reshape(-1, self.size))[:, 0]


class Tokens(nnx.Module):
    """Logits of T characters from a latent."""

    def __init__(self, latent, length, *, rngs):
        self.length = length
        self.net = MLP((latent, 128, 128, length * len(LETTERS)), "relu", rngs=rngs)

    def __call__(self, z):
        """Return the logits of the characters: `[..., length, letters]`."""
        return self.net(z).reshape(*z.shape[:-1], self.length, len(LETTERS))


def grammar():
    """Words of syllables: d-, k-, m- or s-; two of them, or three that end in -na."""
    syllables = [c + v for c in "dkms" for v in "aiu"]
    pairs = [a + b for a, b in itertools.product(syllables, syllables) if a[1] == b[1]]
    return pairs + [word + "na" for word in pairs[::4]]


def words_of(path, length):
    """Return the words of a text of at most `length` letters, as often as they occur in it."""
    found = re.findall(r"[a-z]+", Path(path).read_text().lower())
    return [word for word in found if len(word) <= length]


def train(args, form, seed, make, draw, batcher, arrays, updates, samples):
    """One run: the trained generator, and the monitors along the way."""
    generator, discriminator, latent = make(seed)
    config = bgan.BGANConfig(
        updates, batch=args.batch, latent=latent, samples=samples, lr=args.lr, form=form
    )
    history = []

    def progress(done, metrics):
        history.append([done, *(round(metrics[name], 3) for name in ("ess", "log_z"))])
        print(f"{form}: {done} updates, ess and log Z {history[-1][1:]}", file=sys.stderr)

    state = train_loop(
        jax.random.key(seed),
        bgan.init(generator, discriminator, config),
        bgan.make_step(generator, discriminator, draw, config),
        batcher,
        arrays,
        steps=updates,
        chunk=max(1, updates // PLACES),
        progress=progress,
    )
    nnx.update(generator, state.generator)
    return generator, {"updates_ess_log_z": history}


def classifier(images, labels, updates):
    """Return a perceptron on binarised images, trained by Adam: images -> log probabilities."""
    graph, params = nnx.split(MLP((784, 256, 10), "relu", rngs=nnx.Rngs(0)))
    optimiser = optax.adam(1e-3)

    def log_p(params, x):
        return jax.nn.log_softmax(nnx.merge(graph, params)(x.reshape(-1, 784)))

    def step(state, batch, key):
        params, opt = state
        loss, grads = jax.value_and_grad(
            lambda params: (
                -jnp.mean(jnp.take_along_axis(log_p(params, batch[0]), batch[1][:, None], 1))
            )
        )(params)
        moves, opt = optimiser.update(grads, opt)
        return (optax.apply_updates(params, moves), opt), {"loss": loss}

    def batcher(arrays, key):
        rows = jax.random.randint(key, (128,), 0, len(images))
        return binary(arrays[0][rows]), arrays[1][rows]

    arrays, start = (images, labels), (params, optimiser.init(params))
    params, _ = train_loop(jax.random.key(9), start, step, batcher, arrays, steps=updates)
    return jax.jit(lambda x: log_p(params, x))


def binary(images):
    """Bytes to 0.0 and 1.0."""
    return jnp.asarray(images >= 128, jnp.float32)


def judged(log_p, x):
    """Return what a classifier says of images, see the module."""
    logs = log_p(x)
    p = jnp.exp(logs)
    mean = jnp.mean(p, axis=0)
    information = jnp.mean(jnp.sum(p * (logs - jnp.log(mean)), axis=1))
    return {
        "top": round(float(jnp.mean(jnp.max(p, axis=1))), 3),
        "classes": round(float(jnp.exp(-jnp.sum(mean * jnp.log(mean)))), 2),
        "score": round(float(jnp.exp(information)), 2),
        "pixels": round(float(jnp.mean(x)), 3),
    }


def of_images(args):
    """Rows of the two forms and of the test images, and pictures of each."""
    training, test = (data.fashion_mnist(split) for split in ("train", "test"))
    images = jnp.asarray(training.images)
    log_p = classifier(images, jnp.asarray(training.labels), args.judge_updates)
    real = binary(test.images)
    right = np.mean(np.argmax(log_p(real), axis=1) == test.labels)
    rows = [{"what": "images", "form": "test images", **judged(log_p, real)}]
    pictures = [real[:12]]

    def make(seed):
        rngs = nnx.Rngs(seed)
        return Decoder(64, rngs=rngs), Ratio(784, rngs=rngs), 64

    def batcher(images, key):
        return binary(images[jax.random.randint(key, (args.batch,), 0, len(images))])

    for form in bgan.FORMS:
        generator, found = train(
            args,
            form,
            args.seed,
            make,
            bgan.bernoulli_images,
            batcher,
            images,
            args.updates,
            args.samples,
        )
        z_key, x_key = jax.random.split(jax.random.key(5))
        z = jax.random.normal(z_key, (2_000, 64))
        x = bgan.bernoulli_images(generator, z, x_key, 1)[0][0]
        rows.append({"what": "images", "form": form, **judged(log_p, x), **found})
        pictures.append(x[:12])
    return rows, round(float(right), 4), pictures


def of_words(args):
    """Rows of the two forms on words."""
    vocabulary = words_of(args.text, args.length) if args.text else grammar()
    texts = [word.ljust(args.length) for word in vocabulary]
    tokens = jnp.asarray([[LETTERS.index(letter) for letter in text] for text in texts])
    known = {text: None for text in texts}

    def pairs(rows):
        rows = np.asarray(rows)
        counts = Counter(zip(rows[:, :-1].ravel(), rows[:, 1:].ravel(), strict=True))
        total = sum(counts.values())
        return {pair: count / total for pair, count in counts.items()}

    def make(seed):
        rngs = nnx.Rngs(seed)
        return Tokens(16, args.length, rngs=rngs), Ratio(args.length * len(LETTERS), rngs=rngs), 16

    def batcher(tokens, key):
        rows = jax.random.randint(key, (args.batch,), 0, len(tokens))
        return jax.nn.one_hot(tokens[rows], len(LETTERS))

    def measured(generator):
        z_key, x_key = jax.random.split(jax.random.key(5))
        z = jax.random.normal(z_key, (2_000, 16))
        drawn = jnp.argmax(bgan.categorical_tokens(generator, z, x_key, 1)[0][0], axis=-1)
        written = ["".join(LETTERS[i] for i in row) for row in np.asarray(drawn)]
        one, two = pairs(drawn), pairs(tokens)
        return {
            "valid": round(float(np.mean([text in known for text in written])), 3),
            "different": len(set(written) & set(known)),
            "bigrams": round(
                0.5 * sum(abs(one.get(p, 0) - two.get(p, 0)) for p in {**one, **two}), 3
            ),
            "examples": written[:8],
        }

    rows = []
    for form in (None, *bgan.FORMS):
        updates = args.word_updates if form else 0
        generator, found = make(args.seed)[0], {}
        if form:
            draw = bgan.categorical_tokens
            generator, found = train(
                args, form, args.seed, make, draw, batcher, tokens, updates, args.samples
            )
        rows.append({"what": "words", "form": form or "untrained", **measured(generator), **found})
    return rows, len(known)


def main():
    """Print one JSON line."""
    parser = common.parser(__doc__)
    parser.add_argument("--updates", type=int, default=3_000, help="on images")
    parser.add_argument("--word-updates", type=int, default=6_000, help="on words")
    parser.add_argument("--samples", type=int, default=10, help="M for each latent")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-4, help="Adam's, of both players")
    parser.add_argument("--judge-updates", type=int, default=1_000)
    parser.add_argument("--length", type=int, default=6, help="characters of a word")
    parser.add_argument("--text", help="a file whose words to learn, not the grammar's")
    parser.add_argument("--figure", help="save a picture of the images here")
    args = parser.parse_args()
    if args.smoke:
        args.updates = args.word_updates = args.judge_updates = 8
        args.samples = 3
    words, different = of_words(args)
    images, accuracy, pictures = of_images(args)
    if args.figure:
        class_grid([np.asarray(x) for x in pictures], ["test", *bgan.FORMS]).save(args.figure)
    common.report(
        "bgan",
        updates=args.updates,
        word_updates=args.word_updates,
        samples=args.samples,
        batch=args.batch,
        lr=args.lr,
        words=different,
        classifier_accuracy_binary_test=accuracy,
        rows=[*images, *words],
    )


if __name__ == "__main__":
    main()
