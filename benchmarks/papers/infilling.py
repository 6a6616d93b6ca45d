"""Which way of filling in the hidden half of a sequence is best, at equal work?

A language model writes sequences; half of the tokens are hidden, at random places, and drawn
again from the posterior: by sequential importance sampling, with resampling (a particle
filter), with lookahead as well, and by chains: some redraw a few tokens at a time, others write
whole sequences beside their own (particle Gibbs). Each gets the same number of model steps
(`--evaluations`), and so a different number of sequences.

First a small random model (8 tokens, length 6) whose log p(observed) is known by enumeration,
then SeqGAN's published oracle, an LSTM over 5,000 tokens (a random one of 500 without it):

  python benchmarks/papers/infilling.py --oracle target_params_py3.pkl

`spread` is the standard deviation of log Z over `--runs` keys, `stated` the mean of the standard
errors that the runs give, `rmse` the error against enumeration or, where that cannot be done,
against `reference`, the mean of all particle filters' Z. `log_p` is the posterior mean of
log p(y): the same for all methods that are right. For chains it is that of their second half.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from seqgan import oracle

from jaxgen.models.text.language_models import LanguageModel
from jaxgen.sequences.infilling import BlockMH, ParticleGibbs, TokenPosterior, infill


def masked(key, writer, length):
    """Return a sequence that the model wrote, half of it hidden at random places."""
    draw, hide = jax.random.split(key)
    tokens = np.asarray(jax.jit(writer.sample, static_argnums=(1, 2))(draw, 1, length)[0])
    observed = np.asarray(jax.random.permutation(hide, np.arange(length) % 2 == 0))
    return TokenPosterior(writer, tokens, observed)


def enumerated(posterior):
    """log Z and the posterior mean of log p, over all that may be hidden."""
    hidden = np.flatnonzero(~posterior.observed)
    fill = np.asarray(list(itertools.product(range(posterior.vocabulary), repeat=len(hidden))))
    tokens = np.tile(posterior.tokens, (len(fill), 1))
    tokens[:, hidden] = fill
    log_p = np.asarray(posterior.writer.log_probs(jnp.asarray(tokens)).sum(axis=1), np.float64)
    log_z = np.logaddexp.reduce(log_p)
    return log_z, np.sum(np.exp(log_p - log_z) * log_p)


def methods(posterior, evaluations, tried, chains, particles):
    """Return settings by name, each of about the same number of model steps."""
    hidden = ~posterior.observed
    looks = int(np.sum(hidden[:-1] & ~hidden[1:])) * min(tried, posterior.vocabulary)
    length = posterior.length

    def moved(kernel):
        """Chains for about the same work; for short runs of dear moves, fewer chains."""
        each = kernel.steps(posterior.vocabulary, length, hidden)
        count = max(2, min(chains, evaluations // (length + 4 * each)))
        sweeps = max(2, round((evaluations / count - length) / each))
        return {"num_chains": count, "kernel": kernel, "num_steps": sweeps}

    plain, ahead = evaluations // length, max(2, evaluations // (length + looks))
    return {
        "importance": {"num_chains": plain, "resample": None},
        "particles": {"num_chains": plain},
        f"lookahead {tried}": {"num_chains": ahead, "lookahead": tried},
        "redraw": moved(BlockMH(4)),
        "particle gibbs": moved(ParticleGibbs(particles)),
    }


def compare(args, name, posterior, exact, tried):
    """One row for each method."""
    log_p = jax.jit(jax.vmap(lambda posterior, y: posterior.log_prior(y), (None, 0)))
    rows = []
    for method, settings in methods(
        posterior, args.evaluations, tried, args.chains, args.particles
    ).items():
        found = []
        for run in range(args.runs + 1):  # the first compiles
            begun = time.perf_counter()
            result = infill(jax.random.key(args.seed + run), posterior, **settings)
            seconds = time.perf_counter() - begun
            mean = float(np.sum(result.weights * np.asarray(result.log_prior)))
            if settings.get("num_steps"):
                late = result.draws[:, settings["num_steps"] // 2 :]
                late = late.reshape(-1, posterior.length)[-2048:]
                mean = float(np.mean(log_p(posterior, jnp.asarray(late))))
            found.append((result, seconds, mean))
        found = found[1:]
        log_z = np.array([result.log_z for result, *_ in found])
        row = {
            "model": name,
            "method": method,
            "sequences": settings["num_chains"],
            "evaluations": settings["num_chains"] * found[0][0].num_evaluations,
            "log_z": log_z,
            "stated": np.mean([result.log_z_standard_error for result, *_ in found]),
            "ess": np.mean([result.ess for result, *_ in found]),
            "ancestors": np.mean([result.num_lineages for result, *_ in found]),
            "log_p": [mean for *_, mean in found],
            "acceptance": float(np.mean(found[0][0].acceptance_rate)),
            "seconds": np.mean([seconds for _, seconds, _ in found]),
        }
        print(
            f"{name}, {method}: {row['seconds']:.1f} s, log Z {log_z}", file=sys.stderr, flush=True
        )
        rows.append(row)
    filters = np.concatenate([row["log_z"] for row in rows[1:3]])
    reference, mean = exact or (np.logaddexp.reduce(filters) - np.log(len(filters)), None)
    for row in rows:
        log_z = row.pop("log_z")
        # Their log Z is that of how they were started.
        chains = row["method"] in ("redraw", "particle gibbs")
        row |= {
            "mean_log_z": None if chains else round(float(log_z.mean()), 3),
            "spread": None if chains else round(float(log_z.std(ddof=1)), 4),
            "stated": None if chains else round(float(row["stated"]), 4),
            "rmse": None if chains else round(float(np.sqrt(np.mean((log_z - reference) ** 2))), 4),
            "reference": round(float(reference), 3),
            "ess": None if chains else round(float(row["ess"]), 1),
            "acceptance": round(row["acceptance"], 3) if chains else None,
            "log_p_spread": round(float(np.std(row["log_p"], ddof=1)), 4),
            "log_p": round(float(np.mean(row["log_p"])), 3),
            "exact_log_p": None if mean is None else round(float(mean), 3),
            "seconds": round(float(row["seconds"]), 2),
        }
    return rows


def main():
    """Print one JSON line."""
    parser = common.parser(__doc__)
    parser.add_argument("--oracle", help="target_params_py3.pkl of SeqGAN's repository")
    parser.add_argument("--evaluations", type=int, default=40_000, help="model steps in each run")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--tried", type=int, default=100, help="tokens tried by lookahead")
    parser.add_argument("--chains", type=int, default=32, help="that redraw, at most")
    parser.add_argument("--particles", type=int, default=32, help="of particle Gibbs")
    args = parser.parse_args()
    if args.smoke:
        args.evaluations, args.runs, args.tried, args.chains = 2_000, 2, 8, 4
        args.particles = 4
    small = masked(
        jax.random.key(args.seed), LanguageModel(8, 8, 8, scale=2.0, rngs=nnx.Rngs(1)), 6
    )
    rows = compare(args, "small", small, enumerated(small), 8)
    if args.oracle:
        writer, name = oracle(args.oracle), "oracle"
    else:
        writer, name = (
            LanguageModel(50 if args.smoke else 500, scale=1.0, rngs=nnx.Rngs(7)),
            "random",
        )
    posterior = masked(jax.random.key(args.seed), writer, 20)
    rows += compare(args, name, posterior, None, args.tried)
    common.report("infilling", vocabulary=writer.vocabulary, runs=args.runs, rows=rows)


if __name__ == "__main__":
    main()
