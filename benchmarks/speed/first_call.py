"""What does the first call cost: importing, `--help`, compiling, and a second process?

Each figure is of a process of its own, with an empty cache of compiled programs, but for `second`,
which finds there what the first has left:

  import          `import jaxgen`
  help            `jaxgen --help`
  sample, first   the first `jaxgen.sample` at its defaults, seconds until its numbers are there,
                  and how many programs were compiled in it; building the posterior is not counted
  sample, second  the same in a second process
  sample, again   a second call in that process: what remains is sampling
  ais, first      `jaxgen.ais` with HMC(10) at 100 linear temperatures and a fixed step
  blackjax        BlackJAX's own HMC(10) in a scan of 100 steps, as its users write it

on the posterior of the two-dimensional toy, and of a class of the shipped DCGAN. The median of
`--rounds` rounds; processes run one after another. What a process compiles is counted by JAX's own
events.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common

CASES = ("toy", "dcgan")
CALLS = ("sample", "ais", "blackjax")
STEPS = 100

CHILD = """
import json, sys, time
call, case, chains, steps, smoke = *sys.argv[1:3], *map(int, sys.argv[3:6])
import jax
import jax.numpy as jnp
import numpy as np
import jaxgen
from jaxgen import kernels, schedules
compiled = []
def count(event, seconds, **about):
    if event == "/jax/core/compile/backend_compile_duration":
        compiled.append(seconds)
jax.monitoring.register_event_duration_secs_listener(count)
if case == "toy":
    condition = jaxgen.Operator(
        np.zeros(1, np.float32), np.float32(0.045), forward=lambda x: x[1:])
    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard(2), jaxgen.load("toy2d/gan"), condition)
    step_size = 0.03
else:
    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard(64), jaxgen.load("fashion-mnist/dcgan"),
        jaxgen.ClassLogSoftmax(jaxgen.load("fashion-mnist/cnn"), 3))
    step_size = 0.05
few = dict(num_steps=2, warmup=2) if smoke else {}
def sample(key):
    return jaxgen.sample(key, posterior, num_chains=chains, **few).log_z
def ais(key):
    return jaxgen.ais(key, posterior, kernels.HMC(10), schedules.linear(steps),
                      step_size=step_size, num_chains=chains).log_z
@jax.jit
def loop(key, start):
    import blackjax
    algorithm = blackjax.hmc(posterior.logdensity, step_size, jnp.ones(start.shape[-1]), 10)
    states = jax.vmap(algorithm.init)(start)
    def step(states, key):
        keys = jax.random.split(key, chains)
        return jax.vmap(algorithm.step)(keys, states)[0], None
    return jax.lax.scan(step, states, jax.random.split(key, steps))[0].position
def blackjax(key):
    return loop(key, jax.vmap(posterior.prior.sample)(jax.random.split(key, chains)))
call = {"sample": sample, "ais": ais, "blackjax": blackjax}[call]
before = len(compiled)
begun = time.perf_counter()
jax.block_until_ready(call(jax.random.key(0)))
first = time.perf_counter() - begun
programs, compiling = len(compiled) - before, sum(compiled[before:])
begun = time.perf_counter()
jax.block_until_ready(call(jax.random.key(1)))
print(json.dumps({"first": first, "again": time.perf_counter() - begun,
                  "programs": programs, "compiling": compiling}))
"""


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Return the seconds that a process takes."""
    begun = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def called(call: str, case: str, environment: dict[str, str], args) -> dict[str, float]:
    """Return what a process measures of one first call."""
    chains = {"toy": 256, "dcgan": 64}[case] if not args.smoke else 8
    numbers = map(str, (chains, STEPS if not args.smoke else 2, int(args.smoke)))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, call, case, *numbers],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def one_round(args) -> dict[str, float]:
    """Return all figures of one round."""
    figures = {}
    plain = {k: v for k, v in os.environ.items() if not k.startswith("JAX")}
    python = sys.executable
    figures["import"] = seconds([python, "-c", "import jaxgen"], plain)
    figures["help"] = seconds([python, "-m", "jaxgen.cli", "--help"], plain)
    for case in CASES if not args.smoke else CASES[:1]:
        for call in CALLS:
            with tempfile.TemporaryDirectory() as folder:
                environment = {**plain, "JAXGEN_CACHE": folder}
                for process in ("first", "second") if call == "sample" else ("first",):
                    found = called(call, case, environment, args)
                    name = f"{case}, {call}, {process}"
                    figures[name] = found["first"]
                    figures[f"{name}, programs"] = found["programs"]
                    figures[f"{name}, compiling"] = found["compiling"]
                    figures[f"{case}, {call}, again"] = found["again"]
    return figures


def main() -> None:
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--rounds", type=int, default=3)
    args = options.parse_args()
    rounds = [one_round(args) for _ in range(1 if args.smoke else args.rounds)]
    middle = {name: round(statistics.median(r[name] for r in rounds), 2) for name in rounds[0]}
    rows = [{"what": name, "figure": figure} for name, figure in middle.items()]
    common.report("first_call", rounds=len(rounds), rows=rows)


if __name__ == "__main__":
    main()
