"""Wu et al.'s table: how likely do decoders find test digits, and does so long a run pay?

    log p(x) = log of the integral of N(z; 0, I) p(x | G(z)) over z

by annealed importance sampling with their settings, 10,000 temperatures (a rescaled sigmoid from
-4 to 4), HMC with 10 leapfrogs, 16 chains, all from the prior; beside it the same with a
hundredth of the temperatures, and `jaxgen.loglik` at its defaults. `gap` is that of bidirectional
Monte Carlo, on pairs that the model draws, by each method: what it lies below the truth at most.

Decoders are published MNIST networks (JAXGEN_TEST_WEIGHTS): an autoencoder (784-400-20) and the
generator of a DCGAN. Both are given Gaussian pixels of one variance, as there (0.025 is theirs
for a GAN of ten latents, 0.03 that for a VAE), so that densities compare; the autoencoder has its
own Bernoulli pixels too, on thresholded digits. Their networks are perceptrons whose weights were
not published, so that figures cannot be theirs: the order of VAE and GAN is what is asked.
`--rows FILE` keeps what is done.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "truth"))  # for `loglik`

import common
import jax
import jax.numpy as jnp
import numpy as np
from loglik import WEIGHTS, published

import jaxgen
from jaxgen import kernels, schedules
from jaxgen.data import read_idx
from jaxgen.models.registry import describe
from jaxgen.target.observations import BernoulliObservation, GaussianObservation

VARIANCE = 0.025


def decoders(scratch):
    """name -> (decoder, latents, observation, test images)."""
    found = published(scratch)
    if found is None:
        return {}
    grey = read_idx(WEIGHTS / "images" / "mnist_t10k-images-idx3-ubyte.gz")[..., None]
    grey = grey.astype(np.float32) / 255.0
    gaussian = GaussianObservation(VARIANCE**0.5)
    rows = {
        "VAE, Bernoulli": (found.generator, 20, BernoulliObservation(), found.images),
        "VAE": (found.generator, 20, gaussian, grey),
    }
    file = WEIGHTS / "torch_mnist_dcgan" / "generator.pth"
    if file.is_file():
        from weights_convert.pytorch import convert

        path = Path(scratch) / "mnist_dcgan.safetensors"
        convert(file, "dcgan", path, options={"slope": 0.2}, force=True)
        shape = describe(path).input_shape
        rows["GAN"] = (jaxgen.load(path), shape[0], gaussian, grey)
    return rows


def smoke_decoders():
    """Return the shipped autoencoder alone: nothing else need be there."""
    images = np.asarray(jaxgen.examples().images, np.float32).reshape(-1, 28, 28, 1)
    images = images / max(1.0, float(images.max()))
    network = jaxgen.load("fashion-mnist/vae")
    return {"VAE": (network, 20, GaussianObservation(VARIANCE**0.5), images)}


def settings(args):
    """Return method -> options of `jaxgen.loglik`."""
    fixed = {"kernel": kernels.HMC(2 if args.smoke else 10), "num_chains": 16}
    return {
        "ais": {"betas": schedules.sigmoid(args.temperatures), **fixed},
        "hundredth": {"betas": schedules.sigmoid(max(2, args.temperatures // 100)), **fixed},
        "default": {"num_chains": 64},
    }


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--rows", type=Path, help="file of rows, to go on from")
    options.add_argument("--digits", type=int, default=4)
    options.add_argument("--pairs", type=int, default=4, help="for the gaps; 0 for none")
    options.add_argument("--temperatures", type=int, default=10_000)
    options.add_argument("--only", help="decoders, with ; between them")
    options.add_argument("--methods", default="default,hundredth,ais", help="some of them")
    args = options.parse_args()
    if args.smoke:
        args.digits, args.pairs, args.temperatures = 1, 0, 8
    done = common.Rows(args.rows, "decoder", "method")
    with tempfile.TemporaryDirectory() as scratch:
        found = smoke_decoders() if args.smoke else decoders(scratch)
        if not found:
            raise SystemExit(f"no published networks in {WEIGHTS}: set JAXGEN_TEST_WEIGHTS")
        for name, (network, latents, observation, images) in found.items():
            if args.only and name not in args.only.split(";"):
                continue
            for method in args.methods.split(","):
                if (name, method) in done:
                    continue
                begin = time.process_time()
                result = jaxgen.loglik(
                    jax.random.key(args.seed),
                    network,
                    jnp.asarray(images[: args.digits]),
                    observation,
                    prior=jaxgen.Gaussian.standard(latents),
                    check=args.pairs,
                    **settings(args)[method],
                )
                row = {
                    "decoder": name,
                    "method": method,
                    "log_prob": np.round(result.log_prob, 2),
                    "standard_error": np.round(result.standard_error, 3),
                    "mean": round(result.mean, 2),
                    "over_images": round(result.mean_standard_error, 2),
                    "estimation_error": round(result.estimation_error, 3),
                    "ess": np.round(result.ess, 1),
                    "gap": round(result.gap, 3),
                    "gap_se": round(result.gap_standard_error, 3),
                    "gradients": round(result.num_gradients),
                    "cpu_seconds": round(time.process_time() - begin, 1),
                }
                done.add(row)
                print(row, file=sys.stderr, flush=True)
    common.report(
        "wu_table",
        variance=VARIANCE,
        temperatures=args.temperatures,
        rows=list(done),
    )


if __name__ == "__main__":
    main()
