"""What does a run of so many chains take: gradients a second, memory, compile time?

`jaxgen.ais` with MALA and a fixed step on the shipped DCGAN and class condition. A row for
each number of chains and each type of the networks:

  float32   everything in float32 (on a GPU with full-precision products)
  bfloat16  the networks in bfloat16 (`Network.astype`); positions, log densities and
            acceptance in float32
  tf32      float32 with the GPU's TF32 products; only where there is a GPU

and in it: gradients and chain-steps a second and the milliseconds of a gradient of one chain,
over whole runs; the run's time over that of the same number of bare batched gradients; the
acceptance rate and log Z, and how far both are from the float32 row of as many chains; the
first call's time in a process, and in a second process that finds the program in the
compilation cache; the process's peak memory. Every row is a process of its own (two, for the
cache).
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common

CHAINS = (1, 16, 64, 256, 1024, 4096)
DTYPES = ("float32", "bfloat16", "tf32")
STEP = 2e-4
LABEL = 3
LATENT = 64
# Gradients of single chains in one timed run, and the fewest and most temperatures.
BUDGET, FEWEST, MOST = 16384, 4, 200


def peak_memory_mb() -> float:
    """Return the most memory that this process has held: after its start, where the system says."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) / 1024, 1)
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (2**20 if sys.platform == "darwin" else 1024), 1)


def work(args: Any) -> None:
    """One row, as a line of JSON; `--first` stops after the first call."""
    import jax
    import numpy as np

    if args.dtype == "float32" and jax.default_backend() == "gpu":
        jax.config.update("jax_default_matmul_precision", "highest")
    if args.dtype == "tf32":
        jax.config.update("jax_default_matmul_precision", "tensorfloat32")
    import jaxgen
    from jaxgen import kernels, schedules
    from jaxgen.sampler import sharding
    from jaxgen.target.path import likelihood_path

    generator, classifier = jaxgen.load("fashion-mnist/dcgan"), jaxgen.load("fashion-mnist/cnn")
    if args.dtype == "bfloat16":
        generator, classifier = generator.astype("bfloat16"), classifier.astype("bfloat16")
    target = jaxgen.Posterior(
        jaxgen.Gaussian.standard(LATENT), generator, jaxgen.ClassLogSoftmax(classifier, LABEL)
    )
    tile = min(args.tile, args.chains)

    def run() -> Any:
        return jaxgen.ais(
            jax.random.key(args.seed),
            target,
            kernels.MALA(),
            schedules.linear(args.steps),
            num_chains=args.chains,
            step_size=STEP,
            tile=tile,
        )

    start = time.perf_counter()
    result = run()
    row: dict[str, Any] = {"first_call_s": round(time.perf_counter() - start, 2)}
    if args.first:
        print(json.dumps(row))
        return
    path = likelihood_path(target)

    @jax.jit
    def bare(path: Any, z: Any) -> Any:
        def body(z: Any, _: Any) -> Any:
            gradient = jax.value_and_grad(lambda x: path(x, 0.5))
            value, slope = sharding.over_chains(gradient, (z,), tile)
            return z + 1e-6 * slope, value.sum()

        return jax.lax.scan(body, z, length=args.steps)

    z = jax.random.normal(jax.random.key(1), (args.chains, LATENT))
    jax.block_until_ready(bare(path, z))
    times: dict[str, list[float]] = {"run": [], "bare": []}
    for _ in range(args.rounds):
        for name, function in (("run", run), ("bare", lambda: bare(path, z))):
            start = time.perf_counter()
            jax.block_until_ready(jax.tree.leaves(function())[0])
            times[name].append(time.perf_counter() - start)
    seconds = min(times["run"])
    gradients = float(np.sum(result.num_gradients))
    row |= {
        "gradients_per_s": round(gradients / seconds, 1),
        "chain_steps_per_s": round(args.chains * args.steps / seconds, 1),
        "ms_per_gradient_and_chain": round(1e3 * seconds / gradients, 4),
        "run_over_bare_min": round(seconds / min(times["bare"]), 3),
        "run_over_bare_median": round(float(np.median(np.divide(times["run"], times["bare"]))), 3),
        "acceptance_rate": round(float(result.acceptance_rate), 4),
        "log_z": round(float(result.log_z), 5),
        "log_z_standard_error": round(float(result.log_z_standard_error), 5),
        "peak_memory_mb": peak_memory_mb(),
        "device": jax.devices()[0].device_kind,
    }
    print(json.dumps(row))


def measure(chains: int, dtype: str, args: Any) -> dict[str, Any]:
    """Return a row, measured in processes of its own with an empty compilation cache."""
    steps = args.steps or max(FEWEST, min(MOST, BUDGET // chains))
    command = [sys.executable, __file__, "--worker", "--one", str(chains), "--dtype", dtype]
    command += ["--steps", str(steps), "--rounds", str(args.rounds), "--tile", str(args.tile)]
    command += ["--seed", str(args.seed)]
    row: dict[str, Any] = {"chains": chains, "dtype": dtype, "tile": min(args.tile, chains)}
    row["temperatures"] = steps
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        for extra in ([], ["--first"]):
            out = subprocess.run(
                command + extra, capture_output=True, text=True, env=environment, check=False
            )
            if out.returncode:
                return row | {"failed": out.stderr.strip().splitlines()[-1:]}
            found = json.loads(out.stdout.strip().splitlines()[-1])
            if extra:
                row["first_call_cached_s"] = found["first_call_s"]
            else:
                row |= found
    return row


def main() -> None:
    """Print a table and one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--worker", action="store_true", help="used by the script itself")
    options.add_argument("--first", action="store_true", help="used by the script itself")
    options.add_argument("--one", type=int, dest="one", help="used by the script itself")
    options.add_argument("--dtype", choices=DTYPES, help="this type only")
    options.add_argument("--chains", type=int, nargs="+", default=list(CHAINS))
    options.add_argument("--tile", type=int, default=32)
    options.add_argument("--steps", type=int, default=0, help="temperatures; 0 by the chains")
    options.add_argument("--rounds", type=int, default=3)
    args = options.parse_args()
    if args.worker:
        args.chains = args.one
        return work(args)
    dtypes = [args.dtype] if args.dtype else ["float32", "bfloat16"]
    if args.smoke:
        args.chains, args.steps, args.rounds, dtypes = [4], 2, 1, ["float32"]
    import jax

    if jax.default_backend() == "gpu" and not args.dtype and not args.smoke:
        dtypes.append("tf32")
    rows: list[dict[str, Any]] = []
    for chains in args.chains:
        for dtype in dtypes:
            row = measure(chains, dtype, args)
            exact = next((r for r in rows if r["chains"] == chains and "log_z" in r), None)
            if exact and "log_z" in row:
                row["log_z_change"] = round(row["log_z"] - exact["log_z"], 5)
                row["acceptance_change"] = round(
                    row["acceptance_rate"] - exact["acceptance_rate"], 4
                )
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
    return common.report("throughput", rows=rows)


if __name__ == "__main__":
    main()
