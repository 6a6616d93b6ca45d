"""How fast is annealed importance sampling next to what else there is?

The same posterior, kernel, step size and linear temperatures everywhere, float32:

  jaxgen        `jaxgen.ais`, one gradient for each leapfrog step; one device
  jaxgen, 2     the same with the chains shared out over two devices (one for each core)
  blackjax      its kernels in a scan, initialised at each temperature as its state demands
  tfp           `sample_annealed_importance_chain`, which keeps the gradient of the temperature
                before (fast, and wrong wherever a proposal is refused)
  numpyro       its HMC at a fixed target: it has no temperatures
  torch         PyTorch eager as the co-generation authors write it: a gradient at the present
                point, then L leapfrog steps; 1 or 2 threads, whichever is faster

Targets: `toy`, the posterior of two latents under an MLP 2-128-128-2 of which one output is
observed, 256 chains; `dcgan-16` and `dcgan-64`, the class of images of the shipped DCGAN at 16
and 64 chains. Kernels: HMC with 10 leapfrog steps, and MALA.

Every peer lives in a process of its own and they take turns. A figure is the time in
milliseconds of one step of all chains, least and median over rounds; a run's cost outside its
steps (its Python, the first states) is included. One that cannot be imported is skipped, with the
reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import numpy as np

CASES = {"toy": 256, "dcgan-16": 16, "dcgan-64": 64}
# Steps of one timing; torch's are fewer where it is slow.
STEPS = {
    ("toy", "hmc"): 400,
    ("toy", "mala"): 3000,
    ("dcgan-16", "hmc"): 20,
    ("dcgan-16", "mala"): 100,
    ("dcgan-64", "hmc"): 5,
    ("dcgan-64", "mala"): 40,
}
SHARE = {("torch", "toy"): 0.05}
PEERS = ("jaxgen", "jaxgen-2", "blackjax", "tfp", "numpyro", "torch-1", "torch-2")
LEAPFROG, HMC_STEP, MALA_STEP = 10, 0.02, 2e-4
CLASS = 3
Run = Callable[[int], Any]


# ------------------------------------------------------------------------------- the posterior
def toy_network() -> Any:
    """Return an MLP 2-128-128-2 with random weights, frozen."""
    from flax import nnx

    from jaxgen import freeze
    from jaxgen.models.fashion_mnist.mlp import MLP

    return freeze(MLP((2, 128, 128, 2), rngs=nnx.Rngs(0)))


def second_coordinate(x: Any) -> Any:
    """Return what is observed of a point."""
    return x[1:]


def posterior(case: str) -> Any:
    """Return the posterior of a case."""
    import jax.numpy as jnp

    import jaxgen

    if case == "toy":
        return jaxgen.Posterior(
            jaxgen.Gaussian.standard(2),
            toy_network(),
            jaxgen.Operator(jnp.zeros(1), jnp.float32(0.1), forward=second_coordinate),
        )
    return jaxgen.Posterior(
        jaxgen.Gaussian.standard(64),
        jaxgen.load("fashion-mnist/dcgan"),
        jaxgen.ClassLogSoftmax(jaxgen.load("fashion-mnist/cnn"), CLASS),
    )


def latent(case: str) -> int:
    """Size of the latent."""
    return 2 if case == "toy" else 64


# ------------------------------------------------------------------------------------ the peers
def ours(case: str, kernel: str, chains: int) -> Run:
    """jaxgen, over all devices of the process."""
    import jax

    import jaxgen
    from jaxgen import kernels, schedules

    target = posterior(case)
    move = kernels.HMC(LEAPFROG) if kernel == "hmc" else kernels.MALA()
    size = HMC_STEP if kernel == "hmc" else MALA_STEP
    # Tiles of 16 to 32 chains are best for the DCGAN (benchmarks/speed/gradient.py).
    tile = chains // len(jax.devices()) if case == "toy" else min(32, chains)

    def run(steps: int) -> Any:
        return jaxgen.ais(
            jax.random.key(0),
            target,
            move,
            schedules.linear(steps),
            num_chains=chains,
            step_size=size,
            tile=tile,
        ).acceptance_rate

    return run


def stock(case: str, kernel: str, chains: int) -> Run:
    """BlackJAX's kernels, `init` at each temperature."""
    import blackjax
    import jax
    import jax.numpy as jnp

    from jaxgen.target.path import likelihood_path

    path = likelihood_path(posterior(case))
    algorithm = blackjax.hmc if kernel == "hmc" else blackjax.mala
    step = algorithm.build_kernel()
    settings = (HMC_STEP, jnp.ones(latent(case)), LEAPFROG) if kernel == "hmc" else (MALA_STEP,)

    @jax.jit
    def program(path: Any, z: Any, betas: Any, keys: Any) -> Any:
        def body(z: Any, at: Any) -> Any:
            beta, key = at

            def one(key: Any, z: Any) -> Any:
                def density(x: Any) -> Any:
                    return path(x, beta)

                state, info = step(key, algorithm.init(z, density), density, *settings)
                return state.position, info.acceptance_rate

            z, rate = jax.vmap(one)(jax.random.split(key, len(z)), z)
            return z, rate.mean()

        return jax.lax.scan(body, z, (betas, keys))[1].mean()

    z = jax.random.normal(jax.random.key(0), (chains, latent(case)))

    def run(steps: int) -> Any:
        betas = jnp.linspace(0.0, 1.0, steps + 1)[1:]
        return float(program(path, z, betas, jax.random.split(jax.random.key(1), steps)))

    return run


def tfp(case: str, kernel: str, chains: int) -> Run:
    """TensorFlow Probability on JAX."""
    import functools

    import jax
    import tensorflow_probability.substrates.jax as tfp

    from jaxgen.target.path import likelihood_path

    path = likelihood_path(posterior(case))

    @functools.partial(jax.jit, static_argnums=2)
    def program(path: Any, z: Any, steps: int) -> Any:
        def make(density: Any) -> Any:
            if kernel == "hmc":
                return tfp.mcmc.HamiltonianMonteCarlo(density, HMC_STEP, LEAPFROG)
            return tfp.mcmc.MetropolisAdjustedLangevinAlgorithm(density, 2 * MALA_STEP)

        out = tfp.mcmc.sample_annealed_importance_chain(
            num_steps=steps,
            proposal_log_prob_fn=jax.vmap(lambda x: path(x, 0.0)),
            target_log_prob_fn=jax.vmap(lambda x: path(x, 1.0)),
            current_state=z,
            make_kernel_fn=make,
            seed=jax.random.key(1),
        )
        return out[0], out[1]

    z = jax.random.normal(jax.random.key(0), (chains, latent(case)))

    def run(steps: int) -> Any:
        return jax.block_until_ready(program(path, z, steps)) and float("nan")

    return run


def numpyro(case: str, kernel: str, chains: int) -> Run:
    """NumPyro's HMC at the posterior itself; MALA is HMC with one leapfrog step."""
    import functools

    import jax
    from numpyro.infer.hmc import hmc

    from jaxgen.target.path import likelihood_path

    path = likelihood_path(posterior(case))
    size = HMC_STEP if kernel == "hmc" else (2 * MALA_STEP) ** 0.5
    length = LEAPFROG if kernel == "hmc" else 1

    @functools.partial(jax.jit, static_argnums=2)
    def program(path: Any, z: Any, steps: int) -> Any:
        init, move = hmc(lambda x: -path(x, 1.0), algo="HMC")

        def one(key: Any, z: Any) -> Any:
            # Without `trajectory_length=None` its default would replace the step size.
            state = init(
                z,
                num_warmup=0,
                step_size=size,
                num_steps=length,
                trajectory_length=None,
                adapt_step_size=False,
                adapt_mass_matrix=False,
                rng_key=key,
            )
            body = lambda _, state: move(state)  # noqa: E731
            state = jax.lax.fori_loop(0, steps, body, state)
            return state.mean_accept_prob

        return jax.vmap(one)(jax.random.split(jax.random.key(1), len(z)), z).mean()

    z = jax.random.normal(jax.random.key(0), (chains, latent(case)))
    return lambda steps: float(program(path, z, steps))


def torch_loop(case: str, kernel: str, chains: int, threads: int) -> Run:
    """PyTorch eager: a gradient at the present point, then L leapfrog steps (MALA: one)."""
    import torch

    torch.set_num_threads(threads)
    log_likelihood = torch_log_likelihood(case)

    def gradient(z: Any, beta: float) -> tuple[Any, Any]:
        z = z.detach().requires_grad_(True)
        value = beta * log_likelihood(z) - 0.5 * (z * z).sum(-1)
        (slope,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), slope

    def leapfrog(z: Any, beta: float) -> tuple[Any, Any]:
        momentum = torch.randn_like(z)
        value, slope = gradient(z, beta)
        start = value - 0.5 * (momentum * momentum).sum(-1)
        new = z
        for _ in range(LEAPFROG):
            momentum = momentum + 0.5 * HMC_STEP * slope
            new = new + HMC_STEP * momentum
            value, slope = gradient(new, beta)
            momentum = momentum + 0.5 * HMC_STEP * slope
        return new, value - 0.5 * (momentum * momentum).sum(-1) - start

    def langevin(z: Any, beta: float) -> tuple[Any, Any]:
        value, slope = gradient(z, beta)
        new = z + MALA_STEP * slope + (2 * MALA_STEP) ** 0.5 * torch.randn_like(z)
        end, back = gradient(new, beta)
        there = ((new - z - MALA_STEP * slope) ** 2).sum(-1)
        home = ((z - new - MALA_STEP * back) ** 2).sum(-1)
        return new, end - value + (there - home) / (4 * MALA_STEP)

    move = leapfrog if kernel == "hmc" else langevin
    first = torch.from_numpy(
        np.random.default_rng(0).standard_normal((chains, latent(case)), np.float32)
    )

    def run(steps: int) -> Any:
        z, accepted = first, 0.0
        for beta in np.linspace(0.0, 1.0, steps + 1)[1:]:
            new, ratio = move(z, float(beta))
            keep = torch.rand(chains).log() < ratio
            z = torch.where(keep[:, None], new, z)
            accepted += float(keep.float().mean())
        return accepted / steps

    return run


def torch_log_likelihood(case: str) -> Any:
    """Return the likelihood's twin in torch, of latents `[N, D]`."""
    import torch
    import torch.nn.functional as F

    if case != "toy":
        import gradient

        # The faster of torch's two image formats at both sizes.
        function, w = gradient.torch_function("dcgan28", smoke=False, last=True)
        return lambda z: function(w, z)
    import jax

    layers = jax.tree.map(np.asarray, dict(toy_network().params))["layers"]
    weights = []
    for i in range(3):
        layer = layers[i]
        kernel, bias = (np.asarray(jax.tree.leaves(layer[name])[0]) for name in ("kernel", "bias"))
        weights.append((torch.from_numpy(np.array(kernel.T)), torch.from_numpy(np.array(bias))))

    def value(z: Any) -> Any:
        for i, (kernel, bias) in enumerate(weights):
            z = F.linear(F.relu(z) if i else z, kernel, bias)
        return -0.5 * (z[:, 1] / 0.1) ** 2

    return value


# ------------------------------------------------------------------------------------ processes
def make(peer: str, case: str, kernel: str, chains: int) -> Run:
    """Return the peer's `run(steps)`."""
    if peer.startswith("torch"):
        return torch_loop(case, kernel, chains, int(peer[-1]))
    makers = {"jaxgen": ours, "jaxgen-2": ours, "blackjax": stock, "tfp": tfp, "numpyro": numpyro}
    return makers[peer](case, kernel, chains)


def work(args: Any) -> None:
    """Run once for each line that comes in, and answer with a line: a worker."""
    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(**line: Any) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    try:
        run = make(args.worker, args.case, args.kernel, args.chains)
        start = time.perf_counter()
        rate = run(args.steps)
        answer(first=time.perf_counter() - start, acceptance=rate)
    except Exception as error:
        return answer(skipped=f"{type(error).__name__}: {error}"[:200])
    for _ in sys.stdin:
        start = time.perf_counter()
        run(args.steps)
        answer(seconds=time.perf_counter() - start)
    return None


def start(peer: str, case: str, kernel: str, chains: int, steps: int) -> subprocess.Popen:
    """Return a worker's process."""
    command = [sys.executable, __file__, "--worker", peer, "--case", case, "--kernel", kernel]
    command += ["--chains", str(chains), "--steps", str(steps)]
    flags = "--xla_force_host_platform_device_count=2" if peer == "jaxgen-2" else ""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "XLA_FLAGS": flags, "JAXGEN_DEVICES": ""},
    )


def compare(case: str, kernel: str, args: Any) -> dict[str, Any]:
    """One row: every peer on one case, interleaved."""
    chains = 4 if args.smoke else CASES[case]
    workers, row = {}, {"case": case, "kernel": kernel, "chains": chains}
    for peer in args.peers:
        steps = STEPS[case, kernel] * SHARE.get((peer.split("-")[0], case), 1.0)
        steps = 2 if args.smoke else max(2, round(steps))
        process = start(peer, case, kernel, chains, steps)
        first = json.loads(process.stdout.readline())  # type: ignore[union-attr]
        if "skipped" in first:
            row[peer] = first
            process.communicate()
        else:
            row[peer] = {k: round(v, 3) for k, v in first.items() if v == v}
            workers[peer] = (process, steps, [])
    for _ in range(args.rounds):
        for process, steps, times in workers.values():
            process.stdin.write("go\n")
            process.stdin.flush()
            times.append(1e3 * json.loads(process.stdout.readline())["seconds"] / steps)
    for peer, (process, _, times) in workers.items():
        process.communicate()
        row[peer] |= {
            "min_ms": round(min(times), 4),
            "median_ms": round(float(np.median(times)), 4),
        }
    return row


def ratios(row: dict[str, Any]) -> dict[str, Any]:
    """Return the peers' times over jaxgen's best, least against least and median against median."""
    result: dict[str, Any] = {}
    for kind in ("min_ms", "median_ms"):
        mine = min(row[p][kind] for p in ("jaxgen", "jaxgen-2") if kind in row.get(p, {}))
        for peer in PEERS:
            if kind in row.get(peer, {}):
                result[f"{peer}_{kind[:-3]}"] = round(row[peer][kind] / mine, 2)
    return result


def main() -> None:
    """Print a table and one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--worker", help="used by the script itself")
    options.add_argument("--case", choices=(*CASES, "all"), default="all")
    options.add_argument("--kernel", choices=("hmc", "mala", "both"), default="both")
    options.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    options.add_argument("--chains", type=int)
    options.add_argument("--steps", type=int)
    options.add_argument("--rounds", type=int, default=5)
    args = options.parse_args()
    if args.worker:
        return work(args)
    if args.smoke:
        args.rounds, args.peers = 1, ["jaxgen", "blackjax"]
        args.case, args.kernel = "toy", "mala"
    rows = []
    for case in CASES if args.case == "all" else (args.case,):
        for kernel in ("hmc", "mala") if args.kernel == "both" else (args.kernel,):
            row = compare(case, kernel, args)
            row["over_jaxgen"] = ratios(row)
            rows.append(row)
            cells = [f"{case:9s} {kernel:4s}"]
            for peer in args.peers:
                cells.append(f"{peer} {row[peer].get('min_ms', row[peer].get('skipped'))}")
            print("  ".join(cells), file=sys.stderr, flush=True)
    return common.report("peers", rows=rows, rounds=args.rounds)


if __name__ == "__main__":
    main()
