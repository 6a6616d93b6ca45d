"""What does the sampler cost over the bare gradient?

Bare is the same number of batched `value_and_grad` calls of the same log posterior
(DCGAN, CNN, class condition), chained in one `lax.scan` and nothing else. Beside it:

  jaxgen         the annealing program, one kernel step for each temperature
  fixed          stock BlackJAX kernels at a fixed temperature, scanned
  reinitialised  the same with BlackJAX's state initialised anew at each temperature, which
                 costs one gradient more for each

All programs run in one process, interleaved; figures are medians of ratios over rounds.
"""

from __future__ import annotations

import time

import blackjax
import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen import adapt, engine, kernels, schedules
from jaxgen.path import likelihood_path
from jaxgen.state import ANNEAL, Order


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
    """The annealing program of jaxgen, all temperatures in one chunk."""
    rule = adapt.Fixed(jnp.float32(0.02 if isinstance(kernel, kernels.MALA) else 0.05))
    state = engine.initial_state(jax.random.key(0), path, kernel, rule, num_chains=num_chains)
    order = Order.of(ANNEAL, 0, 1)

    def nothing(path, chain):
        return ()

    def run():
        out = engine.advance(
            state,
            path,
            kernel,
            rule,
            jnp.concatenate([jnp.zeros(1), betas]),
            order,
            resample=None,
            precondition=False,
            collect=nothing,
            tile=None,
            length=len(betas),
        )
        return jax.block_until_ready(out)

    return run


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--chains", type=int, default=64)
    options.add_argument("--rounds", type=int, default=7)
    args = options.parse_args()
    if args.smoke:
        args.chains, args.rounds = 4, 2
    temperatures = 2 if args.smoke else 5
    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard(64),
        jaxgen.load("fashion-mnist/dcgan"),
        jaxgen.ClassLogSoftmax(jaxgen.load("fashion-mnist/cnn"), 3),
    )
    path = likelihood_path(posterior)
    positions = jax.random.normal(jax.random.key(args.seed), (args.chains, 64))
    rows = []
    for kernel, length in ((kernels.MALA(), 1), (kernels.HMC(10), 10)):
        steps = temperatures * (10 if length == 1 else 1)
        betas = jnp.asarray(schedules.linear(steps)[1:], jnp.float32)
        programs = {
            "bare": bare(path, positions, steps * length),
            "jaxgen": ours(path, kernel, betas, args.chains),
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
                "kernel": kernel.name,
                "gradients": steps * length,
                "bare_ms_per_gradient": round(float(np.median(base)) / (steps * length) * 1e3, 2),
                **{
                    f"{name}_over_bare": round(float(np.median(np.array(t) / base)), 3)
                    for name, t in times.items()
                    if name != "bare"
                },
                "jaxgen_over_bare_by_minimum": round(min(times["jaxgen"]) / min(base), 3),
            }
        )
    common.report("overhead", chains=args.chains, rounds=args.rounds, rows=rows)


if __name__ == "__main__":
    main()
