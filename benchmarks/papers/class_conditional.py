"""Are class-conditional samples draws from the posterior? The truth is computable here.

Drawing z from the prior and keeping it with probability p(class | G(z)) gives exact draws
from p(z | class). For each class of Fashion-MNIST, 64 chains of `sample(key, posterior)`
with default settings are compared with such draws:

  judge      fraction that the judge, a network no sampler has seen, puts into the class
  norm       mean |z| / sqrt(d)
  diversity  1 - mean SSIM over all pairs of images (standard error by jackknife)
  features   mean of the judge's features, all of them averaged

each as a difference in standard errors, and by a two-sample test: MMD on the judge's
features, permutation p-value. `max_feature` is the largest difference over single features,
in standard errors; of 128 features the largest of as many independent normals is
about 2.7. The same for MAP (unclipped ascent, Adam), which is not a sampler. One draw is
taken from each chain, its last.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen.data import CLASS_NAMES
from jaxgen.metrics import mmd_permutation_test, within_class_diversity

CHAINS = 64


batched = functools.partial(common.batched, size=500)


def measure(generator, judge, label, z):
    """Images, features, and (mean, standard error) of each statistic."""
    images = batched(generator, z)
    features = np.asarray(batched(judge.at("features"), images), np.float64)
    right = np.asarray(jnp.argmax(batched(judge, images), axis=1) == label, np.float64)
    norm = np.linalg.norm(np.asarray(z, np.float64), axis=1) / np.sqrt(z.shape[1])
    diversity = within_class_diversity(images[:256])
    return features, {
        # A proportion's standard error is not 0 because all 64 happened to agree: one
        # more draw of either kind is counted in (Agresti & Coull).
        "judge": (right.mean(), _proportion_error(right)),
        "norm": _mean(norm),
        "diversity": (float(diversity.diversity), float(diversity.standard_error)),
        "features": _mean(features.mean(axis=1)),
    }


def _mean(values):
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _proportion_error(right):
    share = (right.sum() + 1) / (len(right) + 2)
    return float(np.sqrt(share * (1 - share) / (len(right) + 2)))


def compare(key, sampled, true):
    """Differences in standard errors, and the two-sample test."""
    features, ours = sampled
    true_features, theirs = true
    row = {}
    for name in ours:
        error = np.hypot(ours[name][1], theirs[name][1])
        row[name] = [round(float(ours[name][0]), 3), round(float(theirs[name][0]), 3)]
        row[f"{name}_errors"] = round(float(ours[name][0] - theirs[name][0]) / error, 2)
    error = np.sqrt(
        features.var(axis=0, ddof=1) / len(features)
        + true_features.var(axis=0, ddof=1) / len(true_features)
    )
    score = (features.mean(axis=0) - true_features.mean(axis=0)) / (error + 1e-9)
    row["max_feature"] = round(float(np.abs(score).max()), 2)
    test = mmd_permutation_test(key, jnp.asarray(features), jnp.asarray(true_features[:500]), 999)
    row["mmd_p"] = round(float(test.p_value), 4)
    names = ("judge", "norm", "diversity", "features")
    row["agrees"] = all(abs(row[f"{name}_errors"]) <= 3 for name in names)
    return row


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--draws", type=int, default=20_000, help="prior draws for the truth")
    options.add_argument("--generator", default="fashion-mnist/dcgan", help="(%(default)s)")
    options.add_argument("--classifier", default="fashion-mnist/cnn", help="(%(default)s)")
    args = options.parse_args()
    classes = range(2) if args.smoke else range(10)
    draws = 4000 if args.smoke else args.draws
    generator = jaxgen.load(args.generator)
    classifier, judge = jaxgen.load(args.classifier), jaxgen.load("fashion-mnist/judge")
    prior = jaxgen.Gaussian.standard(64)
    key = jax.random.key(args.seed)

    z = jax.random.normal(jax.random.fold_in(key, 1000), (draws, 64))
    log_p = jax.nn.log_softmax(batched(classifier, batched(generator, z)), axis=1)
    probability = np.exp(np.asarray(log_p, np.float64))
    uniform = np.asarray(jax.random.uniform(jax.random.fold_in(key, 1001), probability.shape))

    rows = []
    for label in classes:
        posterior = jaxgen.Posterior(prior, generator, jaxgen.ClassLogSoftmax(classifier, label))
        accepted = z[np.flatnonzero(uniform[:, label] < probability[:, label])]
        true = measure(generator, judge, label, accepted)
        result = jaxgen.sample(jax.random.fold_in(key, label), posterior, num_chains=CHAINS)
        optimum = jaxgen.ascend(
            jax.random.fold_in(key, 100 + label), posterior, num_chains=CHAINS, num_steps=200
        )
        test_key = jax.random.fold_in(key, 2000 + label)
        exact = float(np.log(probability[:, label].mean()))
        rows.append(
            {
                "class": CLASS_NAMES[label],
                "accepted": len(accepted),
                "gradients": int(result.num_gradients.max()),
                "log_z": [round(result.log_z, 3), round(exact, 3)],
                "log_z_errors": round((result.log_z - exact) / result.log_z_standard_error, 2),
                "posterior": compare(
                    test_key, measure(generator, judge, label, result.position), true
                ),
                "map": compare(test_key, measure(generator, judge, label, optimum.position), true),
            }
        )
    common.report(
        "class_conditional",
        chains=CHAINS,
        prior_draws=draws,
        classes=len(rows),
        posterior_agrees=sum(row["posterior"]["agrees"] for row in rows),
        posterior_mmd_not_rejected_at_1_percent=sum(
            row["posterior"]["mmd_p"] > 0.01 for row in rows
        ),
        map_agrees=sum(row["map"]["agrees"] for row in rows),
        map_mmd_not_rejected_at_1_percent=sum(row["map"]["mmd_p"] > 0.01 for row in rows),
        rows=rows,
    )


if __name__ == "__main__":
    main()
