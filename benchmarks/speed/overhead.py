"""What does the sampler cost over the bare gradient?

Bare is the same number of batched `value_and_grad` calls of the same log posterior,
chained in one `lax.scan` and nothing else: the shipped DCGAN, CNN and class condition, and for
HMC also a toy of two latents under an MLP 2-128-128-2 (256 chains), whose gradient is so cheap
that random numbers and bookkeeping show. Beside it:

  jaxgen         the annealing program, one kernel step for each temperature
  fixed          stock BlackJAX kernels at a fixed temperature, scanned
  reinitialised  the same with BlackJAX's state initialised anew at each temperature, which
                 costs one gradient more for each

All programs run in one process, interleaved; figures are medians of ratios over rounds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import blackjax
import common
import jax
import jax.numpy as jnp
import numpy as np
import peers

from jaxgen import adapt, kernels, schedules
from jaxgen.sampler import program as engine
from jaxgen.sampler.options import ONE_BATCH, ChunkOptions, Sampler, collect_nothing
from jaxgen.sampler.state import ChunkSpec, Phase
from jaxgen.target.path import likelihood_path


def bare(path, positions, count):
    """`count` batched gradients, each at a point that depends on the one before."""

    @jax.jit
    def program(path, z):
        gradient = jax.vmap(jax.value_and_grad(lambda x: path(x, 0.5)))

        def body(z, _):
            value, grad = gradient(z)
            return z + 1e-6 * grad, value.sum()

        return jax.lax.scan(body, z, length=count)

    return lambda: jax.block_until_ready(program(path, positions))


def stock(path, positions, kernel, betas, reinitialise):
    """BlackJAX's kernel through the same temperatures, with `init` at each, or at one beta."""
    length = getattr(kernel, "num_steps", 1)
    algorithm = blackjax.mala if isinstance(kernel, kernels.MALA) else blackjax.hmc
    step = algorithm.build_kernel()
    settings = (
        (0.02,) if algorithm is blackjax.mala else (0.05, jnp.ones(positions.shape[1]), length)
    )

    @jax.jit
    def program(path, z, keys):
        def at(beta):
            return lambda x: path(x, beta)

        first = jax.vmap(lambda x: algorithm.init(x, at(0.5)))(z)

        def body(state, beta_and_keys):
            beta, keys = beta_and_keys
            if reinitialise:
                state = jax.vmap(lambda s: algorithm.init(s.position, at(beta)))(state)
            used = beta if reinitialise else 0.5
            state, info = jax.vmap(lambda k, s: step(k, s, at(used), *settings))(keys, state)
            return state, info.acceptance_rate.mean()

        return jax.lax.scan(body, first, (betas, keys))

    keys = jax.random.split(jax.random.key(1), (len(betas), len(positions)))
    return lambda: jax.block_until_ready(program(path, positions, keys))


def ours(path, kernel, betas, num_chains):
    """Return the annealing program of jaxgen, all temperatures in one chunk."""
    rule = adapt.Fixed(jnp.float32(0.02 if isinstance(kernel, kernels.MALA) else 0.05))
    state = engine.initial_state(jax.random.key(0), path, kernel, rule, num_chains=num_chains)
    sampler = Sampler(path, kernel, rule, jnp.concatenate([jnp.zeros(1), betas]))
    spec = ChunkSpec.of(Phase.ANNEAL, len(betas), 1)
    options = ChunkOptions(None, "none", collect_nothing, ONE_BATCH, len(betas))

    def run():
        out = engine.advance(
            state,
            sampler,
            spec,
            options,
        )
        return jax.block_until_ready(out)

    return run


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--chains", type=int, default=64)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--case", choices=("dcgan", "toy", "both"), default="both")
    args = options.parse_args()
    if args.smoke:
        args.chains, args.rounds = 4, 2
    temperatures = 2 if args.smoke else 5
    cases = [
        # posterior, kernel, gradients a step, chains, temperatures
        ("dcgan", kernels.MALA(), 1, args.chains, 10 * temperatures),
        ("dcgan", kernels.HMC(10), 10, args.chains, temperatures),
        ("toy", kernels.HMC(10), 10, 4 * args.chains, 60 * temperatures),
    ]
    rows = []
    for case, kernel, length, chains, steps in cases:
        if args.case not in (case, "both"):
            continue
        path = likelihood_path(peers.posterior(case))
        positions = jax.random.normal(jax.random.key(args.seed), (chains, peers.latent(case)))
        betas = jnp.asarray(schedules.linear(steps)[1:], jnp.float32)
        programs = {
            "bare": bare(path, positions, steps * length),
            "jaxgen": ours(path, kernel, betas, chains),
            "fixed": stock(path, positions, kernel, betas, reinitialise=False),
            "reinitialised": stock(path, positions, kernel, betas, reinitialise=True),
        }
        for program in programs.values():
            program()
        times = {name: [] for name in programs}
        for _ in range(args.rounds):
            for name, program in programs.items():
                start = time.perf_counter()
                program()
                times[name].append(time.perf_counter() - start)
        base = np.array(times["bare"])
        rows.append(
            {
                "posterior": case,
                "chains": chains,
                "kernel": kernel.name,
                "gradients": steps * length,
                "bare_ms_per_gradient": round(float(np.median(base)) / (steps * length) * 1e3, 3),
                **{
                    f"{name}_over_bare": round(float(np.median(np.array(t) / base)), 3)
                    for name, t in times.items()
                    if name != "bare"
                },
                **{
                    f"{name}_over_bare_by_minimum": round(min(t) / min(base), 3)
                    for name, t in times.items()
                    if name != "bare"
                },
            }
        )
    common.report("overhead", rounds=args.rounds, rows=rows)


if __name__ == "__main__":
    main()
