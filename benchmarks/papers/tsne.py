"""A t-SNE grid: draws laid out so that what a judge finds alike lies side by side.

Draws of one class (`--label`) or of all, by

  sample  `jaxgen.sample` on the shipped DCGAN, class-conditional, one draw of each chain
  ppgn    Joint PPGN-h from random codes, as in `ppgn_examples.py`, the last image of each chain
  real    test images of Fashion-MNIST

-> the judge's features -> two dimensions by scikit-learn's t-SNE -> the cells of a grid, one
each, so that the squared distances to them are least (`jaxgen.plotting.pictures.grid_cells`). The
manner of the PPGN paper's figures and of Karpathy's pictures of CNN codes.

Reported: the mean distance in features of adjacent cells over that of all pairs (1 for a
random layout), and how often adjacent cells are of one class by the judge, beside how often
any two images are. Needs scikit-learn.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np
from common import batched
from ppgn import Study
from ppgn_examples import joint

import jaxgen
from jaxgen import data
from jaxgen.core.errors import expected
from jaxgen.plotting.pictures import grid_cells, mosaic


def drawn(args, classes):
    """Images `[N, 28, 28, 1]`, about as many of each class."""
    key = jax.random.key(args.seed)
    counts = {c: len(part) for c, part in zip(classes, _parts(args.count, classes), strict=True)}
    if args.method == "real":
        test = data.fashion_mnist("test")
        rows = [np.flatnonzero(test.labels == c)[: counts[c]] for c in classes]
        return np.asarray(data.to_unit(test.images[np.concatenate(rows)]))
    if args.method == "sample":
        generator, classifier = jaxgen.load("fashion-mnist/dcgan"), jaxgen.load("fashion-mnist/cnn")
        prior = jaxgen.Gaussian.standard(64)
        few = {"num_steps": 8, "warmup": 4} if args.smoke else {}

        def codes(c):
            condition = jaxgen.ClassLogSoftmax(classifier, jnp.asarray(c))
            posterior = jaxgen.Posterior(prior, generator, condition)
            key_of = jax.random.fold_in(key, c)
            return jaxgen.sample(key_of, posterior, num_chains=counts[c], **few).position

    else:
        args.classes, args.weights = list(range(10)), None
        study = Study(args)
        generator = study.model("joint").generator

        def codes(c):
            return joint(study, key, args.steps, counts[c]).run([c], fold=c).last

    return np.concatenate([np.asarray(batched(generator, codes(c))) for c in classes])


def _parts(count, classes):
    return np.array_split(np.arange(count), len(classes))


def scikit_tsne():
    """Return the class, asked for before any chain runs."""
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        hint = "pip install scikit-learn"
        raise expected("scikit-learn", "an installed package", "none", hint) from error
    return TSNE


def embedded(method, features, seed):
    """t-SNE: `[N, features]` -> `[N, 2]`."""
    perplexity = min(30.0, (len(features) - 1) / 3)
    make = method(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    return make.fit_transform(np.asarray(features, np.float32))


def adjacent(cells):
    """Pairs of rows whose cells touch along a side: `[pairs, 2]`."""
    apart = np.abs(cells[:, None] - cells[None]).sum(-1)
    return np.argwhere(np.triu(apart == 1))


def measured(features, labels, cells):
    """How much more alike adjacent cells are than any two images."""
    i, j = np.triu_indices(len(features), 1)
    a, b = adjacent(cells).T

    def distance(i, j):
        return float(np.mean(np.linalg.norm(features[i] - features[j], axis=1)))

    return {
        "distance_ratio": round(distance(a, b) / distance(i, j), 3),
        "adjacent_of_one_class": round(float(np.mean(labels[a] == labels[b])), 3),
        "any_two_of_one_class": round(float(np.mean(labels[i] == labels[j])), 3),
    }


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--method", choices=("sample", "ppgn", "real"), default="sample")
    options.add_argument("--label", type=int, help="one class; all of them by default")
    options.add_argument("--count", type=int, default=400, help="images, a square number best")
    options.add_argument("--steps", type=int, default=100, help="of a chain of PPGN")
    options.add_argument("--figure", type=Path, help="where to save the picture")
    args = options.parse_args()
    if args.smoke:
        args.count, args.steps = 25, 4
    if args.label is not None and not 0 <= args.label < 10:
        raise expected("--label", "an integer from 0 to 9", args.label)
    classes = [args.label] if args.label is not None else list(range(10))
    if args.count < max(4, len(classes)):
        raise expected("--count", f"at least {max(4, len(classes))}", args.count)
    method = scikit_tsne()
    images = drawn(args, classes)
    judge = jaxgen.load("fashion-mnist/judge")
    features = np.asarray(batched(judge.at("features"), images))
    labels = np.argmax(np.asarray(batched(judge, images)), axis=1)
    cells = grid_cells(embedded(method, features, args.seed))
    if args.figure is not None:
        name = "all classes" if args.label is None else data.CLASS_NAMES[args.label]
        made_by = {
            "sample": "draws of the DCGAN",
            "ppgn": "ends of PPGN's chains",
            "real": "test images",
        }
        title = f"{name}: {len(images)} {made_by[args.method]}, by t-SNE of the judge's features"
        mosaic(images, cells, title=title).save(args.figure, optimize=True)
    row = {"method": args.method, "images": len(images), **measured(features, labels, cells)}
    common.report("tsne", rows=[row])


if __name__ == "__main__":
    main()
