"""The Plug & Play variants on Fashion-MNIST: which prior keeps images real, which one mixes?

Codes are the hidden layer h of the shipped classifier, h1 its last convolution; the
classifier is the condition network too, and the judge (with the held-out discriminator)
measures. The authors' update (`PPGNUpdate.ppgn`: a step over mean |d|, codes in [0, 30]), the
gradient that of log p(class), a step of 0.3 of the mean code (x: 0.05 of white, falling to a
tenth of that); for each class chains from random codes (x: from grey noise):

  ppgn-x           in the space of images, prior a denoising autoencoder of images
  dgn-am           codes, no prior
  ppgn-h           codes, prior a denoising autoencoder of codes
  joint            prior E(G(h)), G trained with noise on x, h1 and h
  noiseless joint  prior E(G(h)), G trained without noise (the paper's best)

then `joint` with noise, and the epsilon 1 and epsilon 3 sweeps and the other three class
gradients on `noiseless joint`.

An intervention asks whether noiseless joint is behind because of its reconstruction's error: its
generator, chains and settings stay, and E(G(h)) is followed by an affine map, fitted to real
training codes by least squares, that takes some of the error away (`corrected`), or by a share of
the way to the mean code, which adds to it (`blurred`). `reconstruction` is the mean square of
R(h) - h over that of h, on codes of held-out images.

Epsilon 2 is 1 throughout. The paper's epsilon 1 of 1e-5 is one of another encoder, whose
codes are larger and whose gradients are smaller; here the sweep says which fits.

Measured on the last image of each chain: judge accuracy, classifier score (by the judge),
MS-SSIM of pairs within a class (low is diverse) with the percent-of-classes rule, Frechet
distance of judge features and mean realism; along the second half of the chains:
autocorrelation of the judge's features at lag 10, their integrated time, and how many of a
class's 8 real modes (k-means) a chain comes near. `real` is test images of the classes.

`--weights FOLDER` takes the networks from where `jaxgen train fashion-mnist/ppgn` (and
ppgn-joint, dae-codes, dae-images) wrote them.
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
from common import batched

import jaxgen
from jaxgen import data, metrics
from jaxgen.applications.ppgn import Denoised, Encoded, PlugAndPlay, PPGNUpdate, run_chains
from jaxgen.core.pytree import pytree
from jaxgen.models.fashion_mnist.codes import Codes

MODES, STRIP = 8, 10


@pytree
class Identity:
    """Where codes are images."""

    def __call__(self, image):
        """Return the image."""
        return image


def network(name, folder):
    """Return a network of jaxgen's, or, where the folder has one of that name, that one."""
    if folder is not None:
        path = folder / f"fashion_mnist_{name.replace('-', '_')}.safetensors"
        if path.exists():
            return jaxgen.load(path)
    return jaxgen.load(f"fashion-mnist/{name}")


@pytree
class Mapped:
    """R(h) = E(G(h)) A + b."""

    encoder: Any
    matrix: jax.Array
    offset: jax.Array

    def __call__(self, code, image):
        """Return the mapped code of the image."""
        return self.encoder(image) @ self.matrix + self.offset


class Study:
    """Networks, real images and their looks; what every row needs."""

    def __init__(self, args):
        names = ("cnn", "judge", "realism", "ppgn", "ppgn-joint", "dae-codes", "dae-images")
        self.nets = {name: network(name, args.weights) for name in names}
        self.codes = Codes.of(self.nets["cnn"])
        self.args = args
        test = data.fashion_mnist("test")
        count = 20 if args.smoke else 200
        self.real = {c: data.to_unit(test.images[test.labels == c][:count]) for c in args.classes}
        everything = jnp.concatenate(list(self.real.values()))
        h = batched(self.codes, everything)
        self.mean_code = float(jnp.mean(jnp.abs(h)))
        self.features = {c: self.look(x) for c, x in self.real.items()}
        self.centres = {c: kmeans(f, 3 if args.smoke else MODES) for c, f in self.features.items()}

    def look(self, images):
        """Return the judge's features of images."""
        return np.asarray(batched(self.nets["judge"].at("features"), images))

    def model(self, variant):
        """Return the variant's networks, and what its codes start from."""
        nets, cnn = self.nets, self.nets["cnn"]
        if variant == "ppgn-x":
            grey = jaxgen.Gaussian(jnp.full((28, 28, 1), 0.5), jnp.full((28, 28, 1), 0.1))
            return PlugAndPlay(Identity(), cnn, Denoised(nets["dae-images"]), grey)
        generator = nets["ppgn-joint" if variant == "joint" else "ppgn"]
        if variant == "dgn-am":
            prior = None
        elif variant == "ppgn-h":
            prior = Denoised(nets["dae-codes"])
        elif variant in ("corrected", "blurred"):
            prior = Mapped(self.codes, *self.mapping(variant))
        else:
            prior = Encoded(self.codes)
        scale = jnp.full(128, self.mean_code)
        return PlugAndPlay(generator, cnn, prior, jaxgen.Gaussian(jnp.zeros(128), scale))

    def mapping(self, variant):
        """Return A and b of `Mapped`, from codes of real training images."""
        count = 300 if self.args.smoke else 10_000
        h = batched(self.codes, data.to_unit(data.fashion_mnist("train").images[:count]))
        if variant == "blurred":
            return 0.75 * jnp.eye(128), 0.25 * jnp.mean(h, axis=0)
        back = np.asarray(batched(self.codes, batched(self.nets["ppgn"], h)), np.float64)
        whole = np.concatenate([back, np.ones((count, 1))], axis=1)
        found = np.linalg.solve(
            whole.T @ whole + 1e-3 * count * np.eye(129), whole.T @ np.asarray(h, np.float64)
        )
        return jnp.asarray(found[:128], jnp.float32), jnp.asarray(found[128], jnp.float32)

    def reconstruction(self, model):
        """Mean square of R(h) - h over that of h, on codes of test images; None without R."""
        if model.prior is None or model.start.mean.ndim != 1:
            return None
        h = batched(self.codes, jnp.concatenate(list(self.real.values())))
        back = jax.vmap(model.prior)(h, batched(model.generator, h))
        return round(float(jnp.mean((back - h) ** 2) / jnp.mean(h**2)), 4)


def kmeans(x, count, steps=15, seed=0):
    """Centres of k-means, from random rows."""
    centres = x[np.random.default_rng(seed).choice(len(x), count, replace=False)]
    for _ in range(steps):
        nearest = np.argmin(((x[:, None] - centres[None]) ** 2).sum(-1), axis=1)
        centres = np.stack(
            [x[nearest == k].mean(0) if np.any(nearest == k) else centres[k] for k in range(count)]
        )
    return centres


def rule_of(study, variant, epsilon1, epsilon3, gradient):
    """Return the authors' rule; in images a pixel goes at most a few hundredths a step."""
    if variant == "ppgn-x":
        first, last, high = 0.05, 0.005, 1.0
    else:
        first = last = 0.3 * study.mean_code
        high = 30.0
    return PPGNUpdate.ppgn(
        epsilon1, epsilon3, first_step=first, last_step=last, high=high, gradient=gradient
    )


def settings():
    """name -> (variant, epsilon1, epsilon3, class gradient)."""
    tiny, one, best = 1e-9, 0.1, "log_softmax"
    rows = {
        "ppgn-x": ("ppgn-x", 10.0, 0.1, best),
        "dgn-am": ("dgn-am", 0.0, tiny, best),
        "ppgn-h": ("ppgn-h", one, tiny, best),
        "joint": ("joint", one, tiny, best),
        "noiseless joint": ("noiseless joint", one, tiny, best),
        "joint, noise 0.3": ("joint", one, 0.3, best),
    }
    for epsilon1 in (0.0, 0.01, 1.0, 10.0):
        rows[f"epsilon1 {epsilon1:g}"] = ("noiseless joint", epsilon1, tiny, best)
    for epsilon3 in (0.1, 0.3, 1.0):
        rows[f"epsilon3 {epsilon3:g}"] = ("noiseless joint", one, epsilon3, best)
    for name in ("corrected", "blurred"):
        rows[f"noiseless joint, {name}"] = (name, one, tiny, best)
    for gradient in ("logit", "softmax", "ppgn"):
        rows[f"gradient {gradient}"] = ("noiseless joint", one, tiny, gradient)
    return rows


def run(study, key, variant, epsilon1, epsilon3, gradient):
    """One row: chains of each class, measured; and a strip of one chain's images."""
    args = study.args
    model, begin = study.model(variant), time.process_time()
    rule = rule_of(study, variant, epsilon1, epsilon3, gradient)
    last, labels, kept, strip, sure, visited = [], [], [], [], [], []
    for label in args.classes:
        result = run_chains(
            jax.random.fold_in(key, label),
            model,
            [label],
            rule,
            num_steps=args.steps,
            num_chains=args.chains,
            tile=min(args.chains, 16),
        )
        images = np.asarray(batched(model.generator, result.last))
        last.append(images)
        labels += [label] * len(images)
        half = result.codes[:, args.steps // 2 :]
        flat = batched(model.generator, half.reshape(-1, *half.shape[2:]))
        features = study.look(flat).reshape(*half.shape[:2], -1)
        kept.append(features)
        visited.append(float(metrics.modes_visited(features, study.centres[label]).by_chain.mean()))
        sure.append(np.mean(result.probabilities[:, args.steps // 2 :] >= 0.97))
        if label == args.shown:
            rows = np.linspace(0, args.steps - 1, STRIP).astype(int)
            strip = np.asarray(batched(model.generator, result.codes[0, rows]))
    seconds = time.process_time() - begin
    lag = min(10, args.steps // 4)
    rho = np.mean([np.asarray(metrics.autocorrelation(f, args.steps // 4)) for f in kept], axis=0)
    line = measure(study, np.concatenate(last), np.asarray(labels))
    line |= {
        "autocorrelation": float(rho[lag]),
        "integrated_time": float(metrics.integrated_time(jnp.asarray(rho))),
        "modes_of_a_chain": float(np.mean(visited)),
        "share_over_0.97": float(np.mean(sure)),
        "cpu_seconds": seconds,
    }
    line = {k: v if isinstance(v, list) else round(float(v), 4) for k, v in line.items()}
    line["reconstruction"] = study.reconstruction(model)
    return line, np.round(strip, 3).reshape(len(strip), -1).tolist()


def measure(study, images, labels):
    """Figures of a set of images of given classes."""
    logits = batched(study.nets["judge"], images)
    order = np.random.default_rng(0).permutation(len(labels))
    alike = metrics.class_similarity(jnp.asarray(images), labels, 10)
    per = len(labels) // len(study.args.classes)
    real = jnp.concatenate([study.real[c][-per:] for c in study.args.classes])
    real_alike = metrics.class_similarity(real, labels, 10)
    reference = np.concatenate(list(study.features.values()))
    return {
        "accuracy": metrics.classifier_accuracy(logits, jnp.asarray(labels)),
        "score": metrics.classifier_score(logits[order]).mean,
        "ms_ssim": alike.mean,
        "diverse_classes": metrics.share_of_diverse_classes(alike.by_class, real_alike.by_class),
        "frechet": metrics.frechet_distance(study.look(images), reference),
        "realism": jnp.mean(batched(study.nets["realism"], images)),
    }


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--weights", type=Path, help="folder that `jaxgen train` wrote to")
    options.add_argument("--rows", type=Path, help="file of rows, to go on from")
    options.add_argument("--figure", type=Path, help="where to save the film strips")
    options.add_argument("--only", help="names of rows, with ; between them")
    options.add_argument("--chains", type=int, default=8)
    options.add_argument("--steps", type=int, default=100)
    args = options.parse_args()
    args.classes, args.shown = ([1, 7], 7) if args.smoke else (list(range(10)), 7)
    if args.smoke:
        args.chains, args.steps = 3, 12
    study = Study(args)
    key = jax.random.key(args.seed)
    done = common.Rows(args.rows, "name")
    for name, setting in settings().items():
        if args.only and name not in args.only.split(";"):
            continue
        if name in done or (args.smoke and name.startswith(("epsilon", "gradient s"))):
            continue
        line, strip = run(study, key, *setting)
        done.add({"name": name, **line, "strip": strip})
        print(name, line, file=sys.stderr, flush=True)
    if args.figure is not None:
        from jaxgen.plotting.pictures import class_grid

        strips = [np.reshape(row["strip"], (-1, 28, 28, 1)) for row in done]
        title = f"{data.CLASS_NAMES[args.shown]}, one chain of {args.steps} steps"
        class_grid(strips, [row["name"] for row in done], title=title).save(args.figure)
    few = min(args.chains, 10)  # as many a class as the chains gave, or nearly
    images = np.concatenate([np.asarray(x[:few]) for x in study.real.values()])
    real = measure(study, images, np.repeat(args.classes, few))
    rows = [{k: v for k, v in row.items() if k != "strip"} for row in done]
    rows.append({"name": "real", **{k: round(float(v), 4) for k, v in real.items()}})
    common.report(
        "ppgn", chains=args.chains, steps=args.steps, mean_code=study.mean_code, rows=rows
    )


if __name__ == "__main__":
    main()
