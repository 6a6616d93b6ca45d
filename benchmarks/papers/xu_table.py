"""Do MCMC draws of a class look real where optima are super-stimuli? The table of Xu et al.

Fashion-MNIST, the shipped DCGAN and classifier, ten classes; every method gets the same
number of gradient evaluations a chain (`--budgets`), and starts from prior draws:

  activation        ascent on the logit - 0.005 |z|^2 (their Eq. 1 with DGN-AM's objective), by
                    Adam with 0.05: DGN-AM, too, rescales its gradients
  activation+clip   the same, z clipped to +-1.5 after each step
  map               ascent on log p(c | G(z)) + log p(z) (Eqs. 2 and 3), step 0.05
  map+clip          the same, clipped (Alg. 1)
  mala              Alg. 2: step 0.12 -> 0.03 as (b + t)^-0.55, noise sqrt(2 step), so annealed
  mala+clip         the same, clipped after the accept step (2 gradients a step)
  hmc               10 leapfrogs, step 0.25 -> 0.07 by the same rule
  default           `jaxgen.sample(key, posterior)`, its numbers of steps cut to the budget
  default x3        the same on log p(z) + 3 log p(c | G(z)), a sharper target

beside `rejection` (exact draws of the posterior) and `real` (test images of the class).
Measured: the logit of the held-out discriminator `fashion-mnist/realism` (mean, and the
distance of its whole distribution from the real images': Kolmogorov-Smirnov, Wasserstein),
the judge's accuracy, the Frechet distance of the judge's features to real test images of
the same classes, diversity (1 - mean SSIM of pairs within a class), |z| / sqrt(d), the
super-stimulus index, precision and recall, CPU seconds; and in how many classes the
judge's features pass a two-sample test against rejection (MMD, p > 0.01).

Latents go to `--rows FILE` as they are made; a run that was stopped goes on from there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import batched

import jaxgen
from jaxgen import adapt, data, kernels, metrics, schedules

CLIP = 1.5
METHODS = (
    "activation",
    "activation+clip",
    "map",
    "map+clip",
    "mala",
    "mala+clip",
    "hmc",
    "default",
    "default x3",
)
PLAIN, RESCALED = optax.sgd(0.05), optax.adam(0.05)


def decaying(first, budget):
    """first (1 + t / b)^-0.55 with b a tenth of the budget: it ends at about first / 4."""
    b = max(budget / 10.0, 1.0)
    return adapt.Scheduled(schedules.PolynomialDecay(first * b**0.55, b, 0.55))


def run(method, key, networks, label, budget, chains):
    """Latents `[chains, 64]`, and gradients a chain."""
    generator, classifier = networks[:2]
    kind = jaxgen.ClassLogit if method.startswith("activation") else jaxgen.ClassLogSoftmax
    condition = kind(classifier, jnp.asarray(label))
    if method == "default x3":
        condition = 3.0 * condition
    posterior = jaxgen.Posterior(jaxgen.Gaussian.standard(64), generator, condition)
    if method.startswith(("activation", "map")):
        result = jaxgen.ascend(
            key,
            posterior,
            RESCALED if method.startswith("activation") else PLAIN,
            num_chains=chains,
            num_steps=budget,
            prior_weight=0.01 if method.startswith("activation") else 1.0,
            clip=(-CLIP, CLIP) if method.endswith("clip") else None,
            tile=min(chains, 32),
        )
        return result.position, result.num_gradients
    if method.startswith("default"):
        # About 5 temperatures, each of `num_mcmc_steps` trajectories of 10 leapfrogs, then a
        # warm-up, then draws.
        few = budget < 400
        num_mcmc_steps, warmup = (1, 5) if few else (3, 10)
        steps = max((budget - 10 * (6 * num_mcmc_steps + warmup)) // 10, 1)
        result = jaxgen.sample(
            key,
            posterior,
            num_chains=chains,
            num_mcmc_steps=num_mcmc_steps,
            warmup=warmup,
            num_steps=steps,
            thin=steps,
            collect=None,
            tile=min(chains, 32),
        )
        return result.position, int(np.max(result.num_gradients))
    if method == "hmc":
        kernel, rule, steps = kernels.HMC(10), decaying(0.25, budget / 10), budget // 10
    else:
        kernel, rule, steps = kernels.MALA(), decaying(0.12, budget), budget
        if method == "mala+clip":
            kernel, steps = kernels.Clipped(kernel, -CLIP, CLIP), budget // 2
    result = jaxgen.sample(
        key,
        posterior,
        kernel,
        num_chains=chains,
        num_steps=steps - 1,
        thin=max(steps - 1, 1),
        warmup=0,
        betas=np.array([0.0, 1.0]),  # no annealing: the whole posterior from the first step
        num_mcmc_steps=1,
        step_size=rule,
        resample=None,
        precondition=False,
        collect=None,
        tile=min(chains, 32),
    )
    return result.position, int(np.max(result.num_gradients))


def rejection(networks, key, classes, chains, draws):
    """Exact draws: z from the prior, kept with probability p(class | G(z))."""
    generator, classifier, _, _ = networks
    z = jax.random.normal(jax.random.fold_in(key, 1), (draws, 64))
    p = jax.nn.softmax(batched(classifier, batched(generator, z)), axis=1)
    keep = np.asarray(jax.random.uniform(jax.random.fold_in(key, 2), p.shape) < p)
    kept = {label: np.asarray(z)[np.flatnonzero(keep[:, label])] for label in classes}
    few = min(len(rows) for rows in kept.values())
    if few < chains:
        raise SystemExit(f"only {few} draws accepted in a class: give more --draws")
    return kept


class Looks:
    """What the judge, the classifier and the discriminator make of images of given classes."""

    def __init__(self, networks, images, labels):
        _, classifier, judge, realism = networks
        self.images, self.labels = np.asarray(images), np.asarray(labels)
        rows = jnp.arange(len(self.labels))
        logits = batched(judge, images)
        self.accuracy = metrics.classifier_accuracy(logits, self.labels)
        self.score = metrics.classifier_score(
            logits[np.random.default_rng(0).permutation(len(rows))]
        )
        self.features = np.asarray(batched(judge.at("features"), images))
        self.realism = np.asarray(batched(realism, images))
        log_p = jax.nn.log_softmax(batched(classifier, images))
        self.confidence = np.asarray(log_p[rows, self.labels])

    def of(self, label):
        """Return the indices of the images of a class."""
        return np.flatnonzero(self.labels == label)


def measure(looks, real, exact, latents):
    """One line of the table."""
    distance = metrics.score_distance(looks.realism, real.realism)
    inside = metrics.precision_recall(looks.features, real.features)
    classes = sorted(set(looks.labels.tolist()))
    diversity = [
        float(metrics.within_class_diversity(looks.images[looks.of(c)]).diversity) for c in classes
    ]
    line = {
        "images": len(looks.labels),
        "realism": looks.realism.mean(),
        "realism_ks": distance.kolmogorov_smirnov,
        "realism_wasserstein": distance.wasserstein,
        "realism_above_real": distance.above,
        "judge": looks.accuracy,
        "confidence": np.exp(looks.confidence).mean(),
        "score": looks.score.mean,
        "frechet": metrics.frechet_distance(looks.features, real.features),
        "diversity": np.mean(diversity),
        "precision": inside.precision,
        "recall": inside.recall,
        "super_stimulus": np.mean(
            [
                metrics.super_stimulus_index(
                    looks.confidence[a], looks.realism[a], real.confidence[b], real.realism[b]
                )
                for a, b in ((looks.of(c), real.of(c)) for c in classes)
            ]
        ),
    }
    if exact is not None:
        tests = [
            metrics.mmd_permutation_test(
                jax.random.key(c), looks.features[looks.of(c)], exact.features[exact.of(c)], 199
            ).p_value
            for c in classes
        ]
        line["not_rejected"] = sum(float(p) > 0.01 for p in tests)
    if latents is not None:
        typicality = metrics.latent_typicality(latents)
        line["norm"] = typicality.norm.mean()
        line["prior_quantile"] = np.median(typicality.quantile)
    return {name: round(float(value), 4) for name, value in line.items()}


def cells(args, networks, key, path):
    """Every (method, budget, class) once: from the file where it is there, else made now."""
    done = common.Rows(path, "method", "budget", "label", "chains")
    for budget, chains in args.sizes:
        for method in METHODS:
            for label in args.classes:
                name = (method, budget, label, chains)
                if name not in done:
                    begin = time.process_time()
                    # The same key for all methods: they start from the same draws.
                    run_key = jax.random.fold_in(jax.random.fold_in(key, budget), label)
                    z, gradients = run(method, run_key, networks, label, budget, chains)
                    row = {
                        **dict(zip(done.key, name, strict=True)),
                        "gradients": gradients,
                        "cpu_seconds": round(time.process_time() - begin, 2),
                        "z": np.round(np.asarray(z, np.float64), 4).tolist(),
                    }
                    done.add(row)
                    print(name, row["cpu_seconds"], file=sys.stderr, flush=True)
    return done


def table(args, networks, done, key):
    """All lines, and a picture of the images."""
    test = data.fashion_mnist("test")

    def of_class(label, start, count):
        return data.to_unit(test.images[test.labels == label][start : start + count])

    def real_images(start, count):
        images = jnp.concatenate([of_class(c, start, count) for c in args.classes])
        return Looks(networks, images, np.repeat(args.classes, count))

    generator = networks[0]
    most = max(chains for _, chains in args.sizes)
    reference = real_images(0, 40 if args.smoke else 200)
    kept = rejection(networks, jax.random.fold_in(key, 999), args.classes, 2 * most, args.draws)
    # What the tests compare with, and, apart from it, a sample as large as the others.
    exact_z = np.concatenate([kept[c][most:][:150] for c in args.classes])
    exact = Looks(
        networks,
        batched(generator, exact_z),
        np.concatenate([[c] * len(kept[c][most:][:150]) for c in args.classes]),
    )
    lines, shown = [], []
    for budget, chains in args.sizes:
        labels = np.repeat(args.classes, chains)
        for method in METHODS:
            rows = [done[method, budget, c, chains] for c in args.classes]
            z = np.concatenate([np.asarray(row["z"], np.float32) for row in rows])
            looks = Looks(networks, batched(generator, z), labels)
            lines.append(
                {
                    "method": method,
                    "budget": budget,
                    "gradients": max(row["gradients"] for row in rows),
                    "chains": chains,
                    **measure(looks, reference, exact, z),
                    # The first class compiled: the median is of the others.
                    "cpu_seconds_a_class": float(np.median([r["cpu_seconds"] for r in rows])),
                }
            )
            shown.append((f"{method} {budget}", looks.images, chains))
        z = np.concatenate([kept[c][:chains] for c in args.classes])
        looks = Looks(networks, batched(generator, z), labels)
        size = {"budget": budget, "chains": chains}
        lines.append({"method": "rejection", **size, **measure(looks, reference, exact, z)})
        shown.append(("rejection (exact)", looks.images, chains))
        real = real_images(500, chains)
        lines.append({"method": "real", **size, **measure(real, reference, exact, None)})
        shown.append(("real images", real.images, chains))
    return lines, shown


def picture(args, shown, path, per_class=2):
    """Xu's Figure 2: a row for each method and budget, a few images of each class."""
    from jaxgen.plotting.pictures import class_grid

    rows = [
        np.concatenate([x[i * n : i * n + per_class] for i in range(len(args.classes))])
        for _, x, n in shown
    ]
    title = "Fashion-MNIST, " + ", ".join(data.CLASS_NAMES[c] for c in args.classes)
    class_grid(rows, [name for name, _, _ in shown], title=title, scale=1 + (not args.smoke)).save(
        path
    )


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--rows", type=Path, help="file of latents, to go on from")
    options.add_argument("--figure", type=Path, help="where to save the grid of pictures")
    options.add_argument("--chains", type=int, default=32)
    options.add_argument("--budgets", default="200,6000")
    options.add_argument("--long-chains", type=int, help="chains where the budget is over 1000")
    options.add_argument("--draws", type=int, default=8000, help="prior draws for rejection")
    args = options.parse_args()
    args.classes = [1, 7] if args.smoke else list(range(10))
    budgets = [20] if args.smoke else [int(b) for b in args.budgets.split(",")]
    chains = 4 if args.smoke else args.chains
    args.draws = 600 if args.smoke else args.draws
    args.sizes = [
        (b, args.long_chains if b > 1000 and args.long_chains else chains) for b in budgets
    ]
    networks = [jaxgen.load(f"fashion-mnist/{name}") for name in ("dcgan", "cnn")]
    key = jax.random.key(args.seed)
    done = cells(args, networks, key, args.rows)
    # Judges are loaded when all has been drawn: no sampler sees them.
    networks += [jaxgen.load(f"fashion-mnist/{name}") for name in ("judge", "realism")]
    lines, shown = table(args, networks, done, key)
    if args.figure is not None:
        picture(args, shown, args.figure)
    common.report("xu_table", classes=len(args.classes), clip=CLIP, rows=lines)


if __name__ == "__main__":
    main()
