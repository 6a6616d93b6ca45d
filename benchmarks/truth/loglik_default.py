"""Are `jaxgen.loglik`'s stated errors right at its defaults?

Test digits of MNIST, thresholded at one half, under a published autoencoder (784-400-20, from
PyTorch; JAXGEN_TEST_WEIGHTS), several keys: error against reference values, in nats and in
stated errors (root mean square over digits and keys), gradients for each chain, and the gap of
bidirectional Monte Carlo on images that the model draws.

Reference values come from importance sampling, in which no sampler takes part: a Student-t
(4 degrees of freedom) is fitted to the weighted draws of a first one around the encoder's mean,
until its weights are even enough `ROUNDS` times. Then `--draws` draws of it give log p(x) =
log mean p(z) p(x | z) / q(z), with an error to first order; every value's effective sample size
is reported. Fixed annealing from the encoder (`--long` temperatures) is the second opinion: the
two must agree within their errors.

A row for each start and key goes into `--rows`; what is there already is not run again.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np
from loglik import published

import jaxgen
from jaxgen import schedules
from jaxgen.core.pytree import pytree
from jaxgen.target.observations import BernoulliObservation

LATENTS, FREEDOM, BATCH = 20, 4, 500
ROUNDS, MOST_ROUNDS = 6, 40


@pytree
class StudentT:
    """A multivariate Student-t with `FREEDOM` degrees of freedom."""

    mean: Any
    factor: Any

    def sample(self, key: Any, count: int) -> Any:
        """Draws `[count, d]`."""
        key_n, key_g = jax.random.split(key)
        normal = jax.random.normal(key_n, (count, LATENTS))
        gamma = jax.random.gamma(key_g, FREEDOM / 2, (count, 1)) * 2 / FREEDOM
        return self.mean[None] + (normal / jnp.sqrt(gamma)) @ self.factor.T

    def log_prob(self, z: Any) -> Any:
        """Log density of draws `[count, d]`."""
        u = jax.scipy.linalg.solve_triangular(self.factor, (z - self.mean[None]).T, lower=True)
        d, v = LATENTS, FREEDOM
        constant = jax.lax.lgamma((v + d) / 2.0) - jax.lax.lgamma(v / 2.0)
        constant -= d / 2 * np.log(v * np.pi)
        constant -= jnp.sum(jnp.log(jnp.diagonal(self.factor)))
        return constant - (v + d) / 2 * jnp.log1p(jnp.sum(u * u, axis=0) / v)


class Reference(NamedTuple):
    """log p(x) of one image, its standard error, and the effective sample size behind it."""

    log_prob: float
    error: float
    ess: float


@jax.jit
def weighted(posterior: Any, proposal: StudentT, z: Any) -> Any:
    """log p(z) p(x | z) / q(z) of draws `[n, d]`."""
    return jax.lax.map(posterior, z, batch_size=BATCH) - proposal.log_prob(z)


def reference(posterior: Any, encoder: Any, image: Any, key: Any, draws: int) -> Reference:
    """Sample by importance from a fitted Student-t."""
    mean, log_variance = encoder(image)
    proposal = StudentT(mean, jnp.diag(2.0 * jnp.exp(0.5 * log_variance)))
    untempered = 0
    for i in range(MOST_ROUNDS):
        z = proposal.sample(jax.random.fold_in(key, i), max(1000, draws // 10))
        log_weight = np.asarray(weighted(posterior, proposal, z), np.float64)
        proposal, power = fitted(np.asarray(z, np.float64), log_weight)
        untempered += power == 1
        if untempered >= ROUNDS:
            break
    z = proposal.sample(jax.random.fold_in(key, MOST_ROUNDS), draws)
    log_weight = np.asarray(weighted(posterior, proposal, z), np.float64)
    top = log_weight.max()
    weight = np.exp(log_weight - top)
    error = weight.std(ddof=1) / weight.mean() / np.sqrt(draws)
    ess = weight.sum() ** 2 / (weight**2).sum()
    return Reference(float(top + np.log(weight.mean())), float(error), float(ess))


def fitted(z: np.ndarray, log_weight: np.ndarray) -> tuple[StudentT, float]:
    """Return a Student-t of the weighted draws' moments, and the power of their weights.

    Weights of which few draws hold the most are flattened.
    """
    power = 1.0
    while power > 1e-3:
        weight = np.exp(power * (log_weight - log_weight.max()))
        weight /= weight.sum()
        if 1 / np.sum(weight**2) > 10 * LATENTS:
            break
        power *= 0.8
    mean = weight @ z
    covariance = (weight[:, None] * (z - mean)).T @ (z - mean) + 1e-6 * np.eye(LATENTS)
    moments = (jnp.asarray(x, jnp.float32) for x in (mean, np.linalg.cholesky(covariance)))
    return StudentT(*moments), power


def references(network: Any, images: Any, args: Any) -> dict[str, Any]:
    """Both opinions on every image."""
    found = [
        reference(
            posterior_of(network.generator, image),
            network.encoder,
            image,
            jax.random.fold_in(jax.random.key(1000 + args.seed), i),
            args.draws,
        )
        for i, image in enumerate(jnp.asarray(images))
    ]
    line = {key: [getattr(row, key) for row in found] for key in Reference._fields}
    second = jaxgen.loglik(
        jax.random.key(2000 + args.seed),
        network.generator,
        images,
        BernoulliObservation(),
        encoder=network.encoder,
        betas=schedules.linear(args.long),
        num_chains=32,
    )
    apart = np.abs(second.log_prob - line["log_prob"]) / np.hypot(
        second.standard_error, line["error"]
    )
    line |= {
        "annealed": second.log_prob.tolist(),
        "annealed_error": second.standard_error.tolist(),
        "apart_rms": float(np.sqrt(np.mean(apart**2))),
        "apart_largest": float(apart.max()),
    }
    return line


def posterior_of(generator: Any, image: Any) -> Any:
    """p(z) p(x | z) of one image."""
    prior = jaxgen.Gaussian.standard(LATENTS)
    return jaxgen.Posterior(prior, generator, BernoulliObservation().condition(image))


def estimated(network: Any, images: Any, start: str, key: int, check: int) -> dict[str, Any]:
    """One key of `jaxgen.loglik` at its defaults."""
    begun = time.perf_counter()
    encoder = network.encoder if start == "encoder" else None
    result = jaxgen.loglik(
        jax.random.key(key),
        network.generator,
        images,
        BernoulliObservation(),
        prior=jaxgen.Gaussian.standard(LATENTS),
        encoder=encoder,
        check=check,
    )
    return {
        "log_prob": result.log_prob.tolist(),
        "standard_error": result.standard_error.tolist(),
        "gradients": result.num_gradients,
        "gap": result.gap,
        "gap_se": result.gap_standard_error,
        "notes": list(result.notes),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def summarised(start: str, rows: list[dict[str, Any]], truth: dict[str, Any]) -> dict[str, Any]:
    """Errors over digits and keys."""
    found = np.array([row["log_prob"] for row in rows])
    stated = np.array([row["standard_error"] for row in rows])
    error = found - np.array(truth["log_prob"])
    ratio = error / np.hypot(stated, truth["error"])
    checked = [row for row in rows if row["gap"] == row["gap"]]
    return {
        "start": start,
        "keys": len(rows),
        "images": found.shape[1],
        "mean_error": float(error.mean()),
        "rms_error": float(np.sqrt(np.mean(error**2))),
        "stated": float(stated.mean()),
        "rms_ratio": float(np.sqrt(np.mean(ratio**2))),
        "largest_ratio": float(np.abs(ratio).max()),
        "within_1.96": float(np.mean(np.abs(ratio) <= 1.96)),
        "gradients": float(np.mean([row["gradients"] for row in rows])),
        "gap": float(np.mean([row["gap"] for row in checked])) if checked else None,
        "gap_se": checked[0]["gap_se"] if checked else None,
        "noted": float(np.mean([bool(row["notes"]) for row in rows])),
    }


def main() -> None:
    """Run what is missing, and print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--digits", type=int, default=10)
    options.add_argument("--keys", type=int, default=4)
    options.add_argument("--starts", default="prior,encoder")
    options.add_argument("--check", type=int, default=16, help="images for the gap, first key")
    options.add_argument("--draws", type=int, default=100_000, help="of the reference")
    options.add_argument("--long", type=int, default=800, help="its second opinion's temperatures")
    options.add_argument("--rows", help="the file of rows, read and appended to")
    options.add_argument(
        "--scratch", default=f"{tempfile.gettempdir()}/jaxgen-loglik", help="for converted weights"
    )
    args = options.parse_args()
    if args.smoke:
        args.digits, args.keys, args.starts, args.check = 2, 1, "encoder", 0
        args.draws, args.long = 2000, 20
    network = published(args.scratch)
    if network is None:
        common.report("loglik_default", rows=[{"skipped": "no published autoencoder"}])
        return
    images = network.images[: args.digits]
    file = None if args.rows is None else Path(args.rows)
    rows = []
    if file is not None and file.exists():
        rows = [json.loads(line) for line in file.read_text().splitlines() if line]

    def once(**names: Any) -> dict[str, Any]:
        names |= {"digits": args.digits}
        for row in rows:
            if all(row.get(k) == v for k, v in names.items()):
                return row
        if names["start"] == "reference":
            row = names | references(network, images, args)
        else:
            check = args.check if names["key"] == args.seed else 0
            row = names | estimated(network, images, names["start"], names["key"], check)
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
        if file is not None:
            with file.open("a") as sink:
                sink.write(json.dumps(row) + "\n")
        return row

    truth = once(start="reference", key=args.seed)
    lines = []
    for start in args.starts.split(","):
        keys = range(args.seed, args.seed + args.keys)
        lines.append(summarised(start, [once(start=start, key=key) for key in keys], truth))
    common.report("loglik_default", rows=lines, reference=truth)


if __name__ == "__main__":
    main()
