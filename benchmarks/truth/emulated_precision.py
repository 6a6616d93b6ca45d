"""What does a posterior lose where "float32" products are really bfloat16 or TF32?

A TPU rounds the factors of a float32 product to bfloat16 (8 bits), recent GPUs to TF32 (11 bits),
unless they are told otherwise, which `precision="highest"` does for every sampler here. This
script emulates `precision="fast"` on a CPU: the factors of every matrix product that asks for
no precision are rounded so (`lax.reduce_precision`), in the network, in its gradient and in
the condition; sums stay in float32, as there. Metropolis is exact for the rounded target, which is
another target, and a rougher one.

For each target and precision: the error of log p at the prior's draws (its standard deviation, its
largest value; at the last states of the exact run it is `error_there`), and of annealed importance
sampling with shared step sizes the acceptance rate, the last step, the number of temperatures, and
log Z with its standard error.

The targets: a digit class of DCGAN and CNN, and the upper half of an image with noise 0.1 and 0.02.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np
from jax._src.lax.lax import _dot_general_lower  # what the emulation ends in; nothing public does
from jax.extend.core.primitives import conv_general_dilated_p, dot_general_p
from jax.interpreters import mlir

import jaxgen
from jaxgen import kernels, schedules
from jaxgen.core.precision import matmul_precision

# Bits of the exponent and of the mantissa.
FORMATS = {"float32": None, "tf32": (8, 10), "bfloat16": (8, 7)}
now: dict[str, Any] = {"format": None}


def emulate() -> None:
    """Let every product without a precision of its own round its factors, from now on."""

    def lower(ctx: Any, a: Any, b: Any, **params: Any) -> Any:
        asked = params["precision"]
        exact = asked is not None and any(p == jax.lax.Precision.HIGHEST for p in asked)
        if now["format"] is None or exact:
            return _dot_general_lower(ctx, a, b, **params)

        def rounded(a: Any, b: Any) -> Any:
            a, b = (jax.lax.reduce_precision(x, *now["format"]) for x in (a, b))
            highest = (jax.lax.Precision.HIGHEST,) * 2
            return dot_general_p.bind(a, b, **(params | {"precision": highest}))

        return mlir.lower_fun(rounded, multiple_results=False)(ctx, a, b)

    def refuse(ctx: Any, *args: Any, **params: Any) -> Any:
        raise NotImplementedError("a convolution that is no matrix product is not emulated")

    mlir.register_lowering(dot_general_p, lower, platform="cpu")
    mlir.register_lowering(conv_general_dilated_p, refuse, platform="cpu")


def targets(smoke: bool) -> dict[str, jaxgen.Posterior]:
    """Return the posteriors by name."""
    generator = jaxgen.load("fashion-mnist/dcgan")
    prior = jaxgen.Gaussian.standard(64)
    condition = jaxgen.ClassLogSoftmax(jaxgen.load("fashion-mnist/cnn"), 3)
    found = {"class": jaxgen.Posterior(prior, generator, condition)}
    if smoke:
        return found
    image = generator(prior.sample(jax.random.key(5)))
    mask = np.zeros((28, 28, 1), np.float32)
    mask[:14] = 1
    for noise in (0.1, 0.02):
        seen = image + noise * jax.random.normal(jax.random.key(6), image.shape)
        condition = jaxgen.ObservedPixels(seen, jnp.asarray(mask), noise)
        found[f"inpaint, noise {noise}"] = jaxgen.Posterior(prior, generator, condition)
    return found


def log_likelihoods(posterior: jaxgen.Posterior, positions: Any) -> np.ndarray:
    """Evaluate at positions `[N, ...]`, at the precision of the moment."""
    from jaxgen.target.path import likelihood_path

    def all_of(path: Any, z: Any) -> Any:
        return jax.lax.map(path.tilt, z, batch_size=16)

    return np.asarray(jax.jit(all_of)(likelihood_path(posterior), positions), np.float64)


def row_of(
    name: str, posterior: Any, fmt: str, there: Any, args: Any
) -> tuple[Any, dict[str, Any]]:
    """One target at one precision; also the last states."""
    prior = posterior.prior.sample
    draws = jax.vmap(prior)(jax.random.split(jax.random.key(1), 16 if args.smoke else 256))
    errors = {}
    for where, positions in (("error", draws), ("error_there", there)):
        if positions is None:
            continue
        jax.clear_caches()
        now["format"] = FORMATS[fmt]
        with matmul_precision("fast"):
            rounded = log_likelihoods(posterior, positions)
        jax.clear_caches()
        now["format"] = None
        errors[where] = rounded - log_likelihoods(posterior, positions)
    jax.clear_caches()
    now["format"] = FORMATS[fmt]
    result = jaxgen.ais(
        jax.random.key(args.seed),
        posterior,
        kernels.HMC(5),
        schedules.Adaptive(0.5 if args.smoke else 0.9),
        num_chains=8 if args.smoke else args.chains,
        num_mcmc_steps=2,
        resample="systematic",
        precision="fast",
        devices=jax.devices()[:1],
    )
    rates = result.history.acceptance_rate
    state = result.state
    row = {
        "target": name,
        "products": fmt,
        "acceptance": float(np.mean(rates[len(rates) // 2 :])),
        "step": float(result.history.step_size[-1]),
        "temperatures": len(rates),
        "log_z": float(result.log_z),
        "log_z_standard_error": float(result.log_z_standard_error),
        "gradients": int(np.max(result.num_gradients)),
    }
    for where, error in errors.items():
        row |= {f"{where}_sd": float(np.std(error)), f"{where}_max": float(np.max(np.abs(error)))}
    return state.chains.position, row


def main() -> None:
    """Print one JSON line."""
    parser = common.parser(__doc__)
    parser.add_argument("--chains", type=int, default=64)
    parser.add_argument("--only", nargs="+", help="targets by the first letters of their names")
    args = parser.parse_args()
    emulate()
    rows = []
    for name, posterior in targets(args.smoke).items():
        if args.only and not name.startswith(tuple(args.only)):
            continue
        there = None
        for fmt in ("float32", "bfloat16") if args.smoke else FORMATS:
            positions, row = row_of(name, posterior, fmt, there, args)
            there = positions if fmt == "float32" else there
            rows.append(row)
    common.report("emulated_precision", rows=rows, chains=args.chains)


if __name__ == "__main__":
    main()
