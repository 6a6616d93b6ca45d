"""Clipping as Xu et al. mean it: class-specific bounds, in the space of a classifier's codes.

Their latent is a code (fc6) and their bounds are statistics of real images' codes; on a normal
latent, where `xu_table.py` has MALA lose by clipping, nothing of that kind exists. Here z is a
code h of the shipped classifier (its hidden layer, 128 numbers), the image is G(h) by the
generator of Plug & Play networks that was trained to undo it, and a class's bounds are

    mean_i +- k sd_i        over the codes of the class's real training images, unit by unit.

The prior is their N(0, I) in the unit of the code: N(0, s^2 I), s a share (`--priors`) of the
codes' root mean square. The share matters: fc6 codes have an r.m.s. of about 4, so that their
prior's s is a quarter of it. "diagonal" is N(mean_i, sd_i^2) of all real codes.

  map, map+clip     ascent on log p(c | G(h)) + log p(h) (Alg. 1)
  mala, mala+clip   Alg. 2 with a decaying step, without and with the clip after the accept step
  hmc               10 leapfrogs, likewise
  real codes        G(E(x)) of test images x of the class, the best that the generator can do
  real              test images

Realism is what they print: the mean log probability of being real, by a discriminator that no
sampler sees. It is trained here, on real training images against G(E(x)), and G of normal codes
about each class's mean and about zero, of every width from none to 1.25 of the real one; its
accuracy on held-out images of each kind is printed; `--work FOLDER` keeps its checkpoint. Beside
it the judge's accuracy, the Frechet distance of its features, diversity, and the share of a
code's units that lie outside of the class's bounds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import batched
from xu_table import decaying

import jaxgen
from jaxgen import data, kernels, metrics
from jaxgen.core.pytree import pytree
from jaxgen.models.fashion_mnist.codes import Codes
from jaxgen.target.networks import freeze
from jaxgen.train import realism
from jaxgen.train.job import rows
from jaxgen.train.loop import train_loop

METHODS = ("map", "map+clip", "mala", "mala+clip", "hmc")
# Steps in units of the prior's scale; MALA accepts 0.8 of its moves on average.
ASCENT, LANGEVIN, LEAPFROG = optax.sgd(0.05), 0.12, 0.25
PAPER = {"mala+clip": -5.53, "map+clip": -6.00, "hmc": -7.96, "mala": -9.79}


@pytree
class Whitened:
    """The generator for coordinates u of unit scale: G(s u).

    Steps are then in the unit of the prior. `scale` may be a number or one for each unit.
    """

    generator: Any
    mean: jax.Array
    scale: jax.Array

    def __call__(self, u):
        """Return the image."""
        return self.generator(self.mean + self.scale * u)


class Study:
    """Networks, codes of real images, and class bounds."""

    def __init__(self, args):
        self.args = args
        self.cnn, self.generator = (jaxgen.load(f"fashion-mnist/{x}") for x in ("cnn", "ppgn"))
        self.train, self.test = data.fashion_mnist("train"), data.fashion_mnist("test")
        count = 600 if args.smoke else 20_000
        self.images = data.to_unit(self.train.images[:count])
        self.labels = np.asarray(self.train.labels[:count])
        self.encode = Codes.of(self.cnn)
        self.codes = np.asarray(batched(self.encode, self.images))
        self.looks: dict[int, np.ndarray] = {}  # the judge's features of test images
        self.rms = float(np.sqrt(np.mean(self.codes**2)))

    def bounds(self, label, k):
        """Lower and upper bounds of a class's codes."""
        own = self.codes[self.labels == label]
        return own.mean(0) - k * own.std(0), own.mean(0) + k * own.std(0) + 1e-3

    def prior(self, name):
        """Mean and scale of the prior."""
        if name == "diagonal":
            return jnp.asarray(self.codes.mean(0)), jnp.asarray(self.codes.std(0) + 1e-3)
        return jnp.zeros(128), jnp.full(128, float(name) * self.rms)

    def made(self, key, kind, images, labels):
        """Return images of one kind of fake, as many as there are images."""
        if kind == "codes of real images":
            return batched(self.generator, batched(self.encode, images))
        noise = np.asarray(jax.random.normal(key, (len(labels), 128)))
        # Of every width, so that optima and draws are both within what it has met.
        noise = noise * np.asarray(jax.random.uniform(jax.random.fold_in(key, 1), (len(labels), 1)))
        if kind == "codes about zero":
            return batched(self.generator, 1.25 * self.rms * noise)
        mean = np.stack([self.codes[self.labels == c].mean(0) for c in range(10)])
        sd = np.stack([self.codes[self.labels == c].std(0) for c in range(10)])
        return batched(self.generator, mean[labels] + 1.25 * sd[labels] * noise)


POOL = 8000
KINDS = ("codes of real images", "codes about a class", "codes about zero")


def judge_of_realism(study, key):
    """Return a discriminator of real images and fakes, and its accuracy on held-out ones."""
    args = study.args
    config = realism.RealismConfig(args.updates, width=8 if args.smoke else 32, weight_decay=0.05)
    pool = jnp.concatenate(
        [
            study.made(jax.random.fold_in(key, i), kind, study.images[:POOL], study.labels[:POOL])
            for i, kind in enumerate(KINDS)
        ]
    )

    def batcher(arrays, key):
        keys = jax.random.split(key)
        real, fake = (rows(k, config.batch // 2, a) for k, a in zip(keys, arrays, strict=True))
        return data.to_unit(real), fake

    state = train_loop(
        jax.random.fold_in(key, 10),
        realism.init(jax.random.fold_in(key, 11), config),
        realism.make_step(config),
        batcher,
        (jnp.asarray(study.train.images), pool),
        steps=config.steps,
        scan=False,
        checkpoint=None if args.work is None else args.work / "realism.checkpoint",
        fingerprint=repr(config),
        progress=lambda done, m: print(done, m, file=sys.stderr, flush=True),
    )
    network = freeze(realism.finish(state, config))
    count = 200 if args.smoke else 2000
    test = data.to_unit(study.test.images[:count])
    labels = np.asarray(study.test.labels[:count])
    above = float(jnp.mean(batched(network, test) > 0))
    accuracy = {}
    for i, kind in enumerate(KINDS):
        fake = study.made(jax.random.fold_in(key, 20 + i), kind, test, labels)
        below = float(jnp.mean(batched(network, fake) < 0))
        accuracy[kind] = round((above + below) / 2, 4)
    return network, accuracy


def run(study, key, method, prior, label, k):
    """Codes `[chains, 128]` of a class by a method, gradients a chain and the acceptance."""
    args = study.args
    mean, scale = study.prior(prior)
    generator = Whitened(study.generator, mean, scale)
    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard(128),
        generator,
        jaxgen.ClassLogSoftmax(study.cnn, jnp.asarray(label)),
    )
    low, high = ((jnp.asarray(b) - mean) / scale for b in study.bounds(label, k))
    tile, budget, clipped = min(args.chains, 32), args.budget, method.endswith("clip")
    if method.startswith("map"):
        result = jaxgen.ascend(
            key,
            posterior,
            ASCENT,
            num_chains=args.chains,
            num_steps=budget,
            clip=(low, high) if clipped else None,
            tile=tile,
        )
        u, gradients, accepted = result.position, result.num_gradients, None
    else:
        if method == "hmc":
            kernel, rule, steps = kernels.HMC(10), decaying(LEAPFROG, budget / 10), budget // 10
        else:
            kernel, rule, steps = kernels.MALA(), decaying(LANGEVIN, budget), budget
            if clipped:  # the clipped place is evaluated again: two gradients a step
                kernel, steps = kernels.Clipped(kernel, low, high), budget // 2
        result = jaxgen.sample(
            key,
            posterior,
            kernel,
            num_chains=args.chains,
            num_steps=steps - 1,
            thin=max(steps - 1, 1),
            warmup=0,
            betas=np.array([0.0, 1.0]),
            num_mcmc_steps=1,
            step_size=rule,
            resample=None,
            precondition=False,
            collect=None,
            tile=tile,
        )
        u, gradients = result.position, int(np.max(result.num_gradients))
        accepted = float(np.mean(result.acceptance_rate))
    return np.asarray(mean + scale * u), gradients, accepted


def measure(study, networks, codes, images, labels, k):
    """One line of the table."""
    judge, fake = networks
    logit = np.asarray(batched(fake, images))
    looks = np.asarray(batched(judge.at("features"), images))
    real = np.concatenate([study.looks[c] for c in study.args.classes])
    diversity = [
        float(metrics.within_class_diversity(np.asarray(images)[labels == c]).diversity)
        for c in study.args.classes
    ]
    log_p = jax.nn.log_softmax(batched(study.cnn, images))
    line = {
        "log_real": -np.mean(np.logaddexp(0.0, -logit)),
        "log_real_error": np.std(-np.logaddexp(0.0, -logit)) / np.sqrt(len(logit)),
        "judge": metrics.classifier_accuracy(batched(judge, images), jnp.asarray(labels)),
        "confidence": jnp.mean(jnp.exp(log_p[jnp.arange(len(labels)), labels])),
        "frechet": metrics.frechet_distance(looks, real),
        "diversity": np.mean(diversity),
    }
    if codes is not None:
        outside = [
            np.mean((codes[labels == c] < low) | (codes[labels == c] > high))
            for c in study.args.classes
            for low, high in [study.bounds(c, k)]
        ]
        line["outside"] = np.mean(outside)
        line["rms_code"] = np.sqrt(np.mean(codes**2)) / study.rms
    return {name: round(float(value), 4) for name, value in line.items()}


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--work", type=Path, help="folder for the discriminator's checkpoint")
    options.add_argument("--rows", type=Path, help="file of codes, to go on from")
    options.add_argument("--draw", help="only draw with these methods, for --rows")
    options.add_argument("--figure", type=Path, help="where to save the grid of pictures")
    options.add_argument("--chains", type=int, default=32)
    options.add_argument("--budget", type=int, default=200)
    options.add_argument("--k", type=float, default=1.0, help="bounds are mean +- k sd")
    options.add_argument("--priors", default="1,0.25", help="or diagonal")
    options.add_argument("--updates", type=int, default=1500, help="of the discriminator")
    args = options.parse_args()
    args.classes = [1, 7] if args.smoke else list(range(10))
    priors = args.priors.split(",")
    if args.smoke:
        args.chains, args.budget, args.updates, priors = 4, 20, 6, ["1"]
    key = jax.random.key(args.seed)
    study = Study(args)
    done = common.Rows(args.rows, "method", "prior", "k", "label")
    for prior in priors:
        for method in args.draw.split(",") if args.draw else METHODS:
            for label in args.classes:
                name = (method, prior, args.k if method.endswith("clip") else 0.0, label)
                if name in done:
                    continue
                begin = time.process_time()
                # The same key for all methods: they start from the same draws.
                codes, gradients, accepted = run(
                    study, jax.random.fold_in(key, label), method, prior, label, args.k
                )
                done.add(
                    {
                        **dict(zip(done.key, name, strict=True)),
                        "gradients": gradients,
                        "acceptance": accepted,
                        "cpu_seconds": round(time.process_time() - begin, 2),
                        "codes": np.round(codes.astype(np.float64), 4).tolist(),
                    }
                )
            print(prior, method, file=sys.stderr, flush=True)
    if args.draw:
        return
    # The judges are made when all has been drawn: no sampler sees them.
    fake, accuracy = judge_of_realism(study, jax.random.fold_in(key, 999))
    networks = (jaxgen.load("fashion-mnist/judge"), fake)
    test_images, test_labels = study.test.images, np.asarray(study.test.labels)
    few = 40 if args.smoke else 200
    of_class = {c: data.to_unit(test_images[test_labels == c]) for c in args.classes}
    study.looks = {
        c: np.asarray(batched(networks[0].at("features"), x[:few])) for c, x in of_class.items()
    }
    labels = np.repeat(args.classes, args.chains)
    lines, shown = [], []
    for prior in priors:
        for method in METHODS:
            found = [
                done[method, prior, args.k if method.endswith("clip") else 0.0, c]
                for c in args.classes
            ]
            codes = np.concatenate([np.asarray(row["codes"], np.float32) for row in found])
            images = batched(study.generator, codes)
            lines.append(
                {
                    "method": method,
                    "prior": prior,
                    "gradients": max(row["gradients"] for row in found),
                    "acceptance": None
                    if found[0]["acceptance"] is None
                    else round(float(np.mean([row["acceptance"] for row in found])), 3),
                    **measure(study, networks, codes, images, labels, args.k),
                    "paper": PAPER.get(method),
                }
            )
            shown.append((f"{method} {prior}", np.asarray(images)))
    real = jnp.concatenate([x[500 : 500 + args.chains] for x in of_class.values()])
    codes = np.asarray(batched(study.encode, real))
    again = batched(study.generator, codes)
    for name, c, images in (("real codes", codes, again), ("real", None, real)):
        lines.append({"method": name, **measure(study, networks, c, images, labels, args.k)})
        shown.append((name, np.asarray(images)))
    if args.figure is not None:
        from jaxgen.plotting.pictures import class_grid

        pairs = [
            np.concatenate([x[i * args.chains :][:2] for i in range(len(args.classes))])
            for _, x in shown
        ]
        class_grid(pairs, [name for name, _ in shown], title="Codes, two of each class").save(
            args.figure
        )
    common.report(
        "xu_codes",
        k=args.k,
        chains=args.chains,
        rms_code=round(study.rms, 4),
        discriminator_accuracy=accuracy,
        rows=lines,
    )


if __name__ == "__main__":
    main()
