"""Compute the stored answers of `jaxgen.posteriors`: the posteriors of shipped networks.

Class posteriors: one pass over `--draws` prior draws; log Z is the log mean of p(class), moments
are weighted by it, errors are those of independent draws.

Posteriors given pixels: the data were drawn by the model, so the latent behind them is an exact
posterior draw. No sampler of jaxgen takes part; everything below is a few lines of HMC.

  1. Chains from the exact draw (A), and chains from the prior that are annealed to the posterior
     and go on there (B). Their means must agree: the root mean square of their difference in
     standard errors at most 1.5, and at most 0.25 posterior deviations.
  2. A Gaussian is fitted to the draws of A and B. Annealed importance sampling from it bounds
     log Z from below; the same path backwards, from draws of A at the end, from above (Grosse et
     al. 2015). The two bounds must agree within 0.3 nats.

Where they do not, nothing is stored and the figures say so. log Z is the middle of the bounds, its
error the larger of half their distance and their standard errors. `--write` puts the answers
into the package.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.posteriors import images

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "jaxgen" / "posteriors" / "answers.json"
CHAINS, LEAPFROG, BATCH = 64, 8, 32
APART_ERRORS, APART_DEVIATIONS, APART_NATS = 1.5, 0.25, 0.3


# ------------------------------------------------------------------------------------- classes
@functools.partial(jax.jit, static_argnames="count")
def class_draws(posterior: Any, key: Any, count: int) -> Any:
    """Prior draws and the log probabilities of all classes."""
    z = jax.random.normal(key, (count, 64))

    def one(x: Any) -> Any:
        return jax.nn.log_softmax(posterior.condition.classifier(posterior.image(x)))

    return z, jax.lax.map(one, z, batch_size=100)


def classes(draws: int, seed: int) -> dict[str, Any]:
    """Return the answers of every class posterior."""
    names = [name for name in images.POSTERIORS if name.startswith("dcgan-class-")]
    labels = [int(name.rsplit("-", 1)[1]) for name in names]
    posterior, size = images.class_posterior(0), 10_000
    total, square = np.zeros(len(labels)), np.zeros(len(labels))
    moments = np.zeros((5, len(labels), 64))  # of w z, w z^2, w^2 z^0, w^2 z, w^2 z^2
    for i in range(draws // size):
        z, log_p = class_draws(posterior, jax.random.fold_in(jax.random.key(seed), i), size)
        z = np.asarray(z, np.float64)
        w = np.exp(np.asarray(log_p, np.float64)[:, labels]).T
        total += w.sum(1)
        square += (w**2).sum(1)
        moments += [w @ z, w @ z**2, (w**2) @ z**0, (w**2) @ z, (w**2) @ z**2]
    count = draws // size * size
    answers = {}
    for k, name in enumerate(names):
        p = total[k] / count
        mean = moments[0, k] / total[k]
        variance = moments[1, k] / total[k] - mean**2
        w2, w2z, w2zz = moments[2:, k]
        spread = np.sqrt(w2zz - 2 * mean * w2z + mean**2 * w2) / total[k]
        error = float(np.sqrt((square[k] / count - p**2) / count) / p)
        answers[name] = record(
            float(np.log(p)), error, mean, variance, spread, f"{count} draws of the prior."
        )
    return answers


def record(
    log_z: float, error: float, mean: Any, variance: Any, mean_error: Any, how: str
) -> dict[str, Any]:
    """One answer, as it is stored."""
    return {
        "log_z": round(log_z, 5),
        "log_z_error": round(error, 5),
        "mean": [round(float(x), 5) for x in mean],
        "variance": [round(float(x), 6) for x in variance],
        "mean_error": [round(float(x), 6) for x in mean_error],
        "how": how,
    }


# --------------------------------------------------------------------------------------- pixels
def in_batches(function: Any, *arguments: Any) -> Any:
    """Map over chains, a batch at a time: faster here than all at once."""
    return jax.lax.map(lambda args: function(*args), arguments, batch_size=BATCH)


def hmc(density: Any, key: Any, u: Any, step: Any) -> tuple[Any, Any]:
    """One HMC move of one chain, unit mass; also the acceptance probability."""
    key_p, key_step, key_u = jax.random.split(key, 3)
    step = step * jax.random.uniform(key_step, (), minval=0.7, maxval=1.3)
    p = jax.random.normal(key_p, u.shape)
    gradient = jax.value_and_grad(density)
    value, slope = gradient(u)
    energy = value - 0.5 * jnp.sum(p * p)

    def leap(_: int, carry: Any) -> Any:
        x, p, _, slope = carry
        p = p + 0.5 * step * slope
        x = x + step * p
        value, slope = gradient(x)
        return x, p + 0.5 * step * slope, value, slope

    x, p, value, _ = jax.lax.fori_loop(0, LEAPFROG, leap, (u, p, value, slope))
    log_ratio = jnp.nan_to_num(value - 0.5 * jnp.sum(p * p) - energy, nan=-jnp.inf)
    rate = jnp.minimum(1.0, jnp.exp(log_ratio))
    return jnp.where(jax.random.uniform(key_u) < rate, x, u), rate


def whitened(posterior: Any, frame: Any, u: Any, beta: Any) -> Any:
    """(1 - beta) log N(u; 0, I) + beta log p(m + L u, y) |L|: a density of u."""
    mean, factor = frame
    log_base = -0.5 * jnp.sum(u * u) - 0.5 * u.size * jnp.log(2 * jnp.pi)
    log_target = posterior(mean + factor @ u) + jnp.sum(jnp.log(jnp.abs(jnp.diagonal(factor))))
    return (1 - beta) * log_base + beta * log_target


@functools.partial(jax.jit, static_argnames=("steps", "thin"))
def chains(
    posterior: Any, frame: Any, u: Any, key: Any, step: Any, steps: int, thin: int, beta: Any = 1.0
) -> Any:
    """Positions `[steps / thin, C, d]` of HMC chains in whitened coordinates, and the mean rate."""

    def move(u: Any, key: Any) -> Any:
        keys = jax.random.split(key, len(u))
        return in_batches(
            lambda k, x: hmc(lambda y: whitened(posterior, frame, y, beta), k, x, step), keys, u
        )

    def body(u: Any, key: Any) -> Any:
        u, rate = jax.lax.scan(move, u, jax.random.split(key, thin))
        return u, (u, rate.mean())

    u, (kept, rate) = jax.lax.scan(body, u, jax.random.split(key, steps // thin))
    return kept, rate.mean()


@functools.partial(jax.jit, static_argnames="adapt")
def annealed(
    posterior: Any, frame: Any, u: Any, key: Any, betas: Any, steps: Any, adapt: bool = False
) -> Any:
    """AIS along `betas` (up or down): final positions, log weights `[C]` and acceptance rates.

    With `adapt` the table of steps is scaled towards a rate of 0.8 on the way, and the weights
    mean nothing.
    """

    def tilt(u: Any) -> Any:
        one, zero = (whitened(posterior, frame, u, beta) for beta in (1.0, 0.0))
        return one - zero

    def body(carry: Any, at: Any) -> Any:
        u, log_weight, scale = carry
        before, beta, step, key = at
        step = step * scale
        log_weight = log_weight + (beta - before) * in_batches(tilt, u)
        keys = jax.random.split(key, len(u))
        u, rate = in_batches(
            lambda k, x: hmc(lambda y: whitened(posterior, frame, y, beta), k, x, step), keys, u
        )
        scale = scale * jnp.exp(0.5 * (rate.mean() - 0.8)) if adapt else scale
        return (u, log_weight, scale), rate.mean()

    keys = jax.random.split(key, len(betas) - 1)
    begin = (u, jnp.zeros(len(u)), jnp.ones(()))
    (u, log_weight, _), rate = jax.lax.scan(body, begin, (betas[:-1], betas[1:], steps, keys))
    return u, log_weight, rate


def settled(posterior: Any, z: Any, frame: Any, key: Any, rounds: int, step: float) -> Any:
    """Move chains while step and frame are learned; also the draws of the last round."""
    cloud = np.asarray(z)
    for i in range(rounds):
        u = jnp.linalg.solve(frame[1], (z - frame[0]).T).T
        kept, rate = chains(
            posterior, frame, u, jax.random.fold_in(key, i), jnp.float32(step), 20, 1
        )
        step = float(np.clip(step * np.exp(3.0 * (float(rate) - 0.8)), 1e-3, 1.0))
        z = frame[0] + kept[-1] @ frame[1].T
        cloud = np.asarray(frame[0] + kept[5:] @ frame[1].T).reshape(-1, z.shape[1])
        frame = fitted(cloud)
        print(f"  round {i}: rate {float(rate):.2f}, step {step:.3f}", file=sys.stderr, flush=True)
    return z, frame, step, cloud


def fitted(cloud: np.ndarray) -> Any:
    """Mean and Cholesky factor of draws `[N, d]`; of their deviations alone where N is small."""
    covariance = np.cov(cloud.T) + 1e-6 * np.eye(cloud.shape[1])
    if len(cloud) < 10 * cloud.shape[1]:
        covariance = np.diag(np.diag(covariance))
    return tuple(
        jnp.asarray(x, jnp.float32) for x in (cloud.mean(0), np.linalg.cholesky(covariance))
    )


def means(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over `[S, C, d]`, and its standard error from the scatter of chains."""
    by_chain = draws.mean(axis=0)
    return by_chain.mean(0), by_chain.std(0, ddof=1) / np.sqrt(len(by_chain))


def bound(log_weight: np.ndarray) -> tuple[float, float]:
    """log of the mean weight, and its standard error."""
    top = log_weight.max()
    weight = np.exp(log_weight - top)
    error = weight.std(ddof=1) / weight.mean() / np.sqrt(len(weight))
    return float(top + np.log(weight.mean())), float(error)


def pixels(name: str, seed: int, scale: float) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return what was found of a posterior given pixels, and its answer where the methods agree."""
    posterior, latent = images.simulated(name)
    size = len(latent)
    keys = jax.random.split(jax.random.key(seed), 10)
    exact = jnp.broadcast_to(jnp.asarray(latent), (CHAINS, size))
    prior = (jnp.zeros(size), jnp.eye(size))
    # B: from the prior, annealed with the prior's own frame.
    u = jax.random.normal(keys[0], (CHAINS, size))
    count = max(20, round(150 * scale))
    betas = np.concatenate([[0.0], np.geomspace(1e-4, 1.0, count)])
    steps = 0.15 / np.sqrt(1 + 100 * betas[1:])
    annealing = (jnp.asarray(betas, jnp.float32), jnp.asarray(steps, jnp.float32))
    u, _, rate = annealed(posterior, prior, u, keys[1], *annealing, adapt=True)
    print(
        f"{name}: annealed, rates {np.round(rate[:: count // 5], 2)}", file=sys.stderr, flush=True
    )
    rounds = max(4, round(10 * scale))
    from_prior, frame, step, first = settled(
        posterior, u, fitted(np.asarray(u)), keys[2], rounds, 0.1
    )
    from_exact, frame, step, second = settled(posterior, exact, frame, keys[3], rounds, step)
    frame = fitted(np.concatenate([first, second]))
    length = max(40, round(400 * scale))
    kept = []
    for start, key in ((from_exact, keys[4]), (from_prior, keys[5])):
        u = jnp.linalg.solve(frame[1], (start - frame[0]).T).T
        drawn, rate = chains(posterior, frame, u, key, jnp.float32(step), length, 4)
        kept.append(np.asarray(frame[0] + drawn @ frame[1].T, np.float64))
    print(f"{name}: long runs, rate {float(rate):.2f}", file=sys.stderr, flush=True)
    (mean_a, error_a), (mean_b, error_b) = means(kept[0]), means(kept[1])
    pooled = np.concatenate(kept, axis=1)
    variance = pooled.reshape(-1, size).var(axis=0)
    apart = float(np.sqrt(np.mean((mean_a - mean_b) ** 2 / (error_a**2 + error_b**2))))
    apart_deviations = float(np.sqrt(np.mean((mean_a - mean_b) ** 2 / variance)))
    # Bounds on log Z from the fitted Gaussian.
    frame = fitted(pooled.reshape(-1, size))
    count = max(20, round(100 * scale))
    betas = np.linspace(0.0, 1.0, count + 1)
    table = jnp.full(count, 1.0 * size**-0.25, jnp.float32)
    up, down = jnp.asarray(betas, jnp.float32), jnp.asarray(betas[::-1], jnp.float32)
    u = jax.random.normal(keys[6], (CHAINS, size))
    _, log_weight, rate_up = annealed(posterior, frame, u, keys[7], up, table)
    lower, lower_error = bound(np.asarray(log_weight, np.float64))
    last = jnp.asarray(kept[0][-1], jnp.float32)
    u = jnp.linalg.solve(frame[1], (last - frame[0]).T).T
    # Backwards the weights are taken at the old point before each move, as they should be.
    _, log_weight, _ = annealed(posterior, frame, u, keys[8], down, table)
    upper, upper_error = bound(np.asarray(log_weight, np.float64))
    upper = -upper
    figures = {
        "name": name,
        "lower": round(lower, 3),
        "lower_error": round(lower_error, 3),
        "upper": round(upper, 3),
        "upper_error": round(upper_error, 3),
        "means_apart_in_errors": round(apart, 2),
        "means_apart_in_deviations": round(apart_deviations, 3),
        "acceptance": [round(float(rate_up.min()), 2), round(float(rate_up.max()), 2)],
    }
    gap = abs(upper - lower)
    if apart > APART_ERRORS or apart_deviations > APART_DEVIATIONS or gap > APART_NATS:
        return figures | {"agree": False}, None
    mean, mean_error = means(pooled)
    error = max(gap / 2, float(np.hypot(lower_error, upper_error) / 2))
    how = (
        "Bidirectional annealing from a Gaussian fitted to long runs from the prior and from the "
        f"exact draw, which agree; the bounds on log Z are {lower:.2f} and {upper:.2f}."
    )
    answer = record((lower + upper) / 2, error, mean, variance, mean_error, how)
    return figures | {"agree": True}, answer


def main() -> None:
    """Compute, print one JSON line, and store with `--write`."""
    options = common.parser(__doc__)
    options.add_argument("--names", help="with commas; `classes` for those; all by default")
    options.add_argument("--draws", type=int, default=400_000, help="prior draws for classes")
    options.add_argument("--scale", type=float, default=1.0, help="length of every run")
    options.add_argument("--write", action="store_true", help=f"into {FILE.relative_to(ROOT)}")
    args = options.parse_args()
    observed = [name for name in images.POSTERIORS if not name.startswith("dcgan-class-")]
    names = args.names.split(",") if args.names else ["classes", *observed]
    if args.smoke:
        names, args.draws, args.scale = ["classes", "vae-image"], 10_000, 0.05
    answers, rows = {}, []
    for name in names:
        if name == "classes":
            answers |= classes(args.draws, args.seed)
            rows += [{"name": n, "log_z": a["log_z"]} for n, a in answers.items()]
        else:
            row, answer = pixels(name, args.seed, args.scale)
            rows.append(row)
            if answer is not None:
                answers[name] = answer
        if args.write:
            known = json.loads(FILE.read_text()) if FILE.exists() else {}
            FILE.write_text(json.dumps(known | answers, indent=1) + "\n")
    common.report("reference_answers", draws=args.draws, scale=args.scale, rows=rows)


if __name__ == "__main__":
    main()
