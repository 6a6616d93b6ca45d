"""How far may a decoder's log likelihood be from the truth?

1. The gap of bidirectional Monte Carlo (nats between a lower and an upper bound on log p(x),
   on images that the model draws) on the shipped Fashion-MNIST autoencoders, by path, schedule
   and number of temperatures. 16 pairs, 16 chains, HMC(10).
2. The first 50 test digits under a published MNIST autoencoder (784-400-20, PyTorch), where
   JAXGEN_TEST_WEIGHTS has it: mean log p(x) from its encoder and from the prior, and the gap.
3. Annealed and plain importance sampling from the encoder against the integral itself, summed
   over a grid, on an autoencoder with two latents that is trained here in seconds.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxgen
from jaxgen import kernels, schedules
from jaxgen.core.pytree import pytree
from jaxgen.data import fashion_mnist, fashion_mnist_available, read_idx
from jaxgen.inference.bdmc import bdmc
from jaxgen.inference.loglik import importance_loglik, loglik
from jaxgen.models.registry import describe
from jaxgen.target.observations import BernoulliObservation, GaussianObservation

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = Path(os.environ.get("JAXGEN_TEST_WEIGHTS", ROOT.parent / "shared" / "weights"))


@pytree
class Layers:
    """A perceptron with ReLU between its matrices."""

    weights: tuple
    offsets: tuple

    def __call__(self, x):
        """Return the last layer, which has no activation."""
        h = x.reshape(-1)
        for i, (w, b) in enumerate(zip(self.weights, self.offsets, strict=True)):
            h = h @ w + b
            h = jax.nn.relu(h) if i + 1 < len(self.weights) else h
        return h


@pytree
class Decoder:
    """Latent to the mean of every pixel."""

    net: Layers

    def __call__(self, z):
        """Return the image, `[28, 28, 1]`."""
        return jax.nn.sigmoid(self.net(z)).reshape(28, 28, 1)


@pytree
class Encoder:
    """Image to mean and log variance."""

    net: Layers

    def __call__(self, image):
        """Return mean and log variance, `[2, latent]`."""
        return self.net(image).reshape(2, -1)


def layers(*pairs):
    """Layers from (matrix, offset) pairs."""
    weights, offsets = zip(*pairs, strict=True)
    cast = [jnp.asarray(x, jnp.float32) for x in (*weights, *offsets)]
    half = len(weights)
    return Layers(tuple(cast[:half]), tuple(cast[half:]))


def gaps(args):
    """Question 1: a row for each model, path, schedule and T."""
    plan = [
        ("encoder", "linear", 50),
        ("encoder", "linear", 200),
        ("encoder", "sigmoid", 200),
        ("encoder", "linear", 800),
        ("prior", "sigmoid", 250),
        ("prior", "sigmoid", 1000),
    ]
    names = ["fashion-mnist/vae", "fashion-mnist/vae-gaussian"]
    if args.smoke:
        plan, names = [("encoder", "linear", 4)], names[:1]
    rows = []
    for name in names:
        sigma = describe(name).metadata.get("sigma")
        observation = BernoulliObservation() if sigma is None else GaussianObservation(sigma)
        generator, encoder = jaxgen.load(name), jaxgen.load(f"{name}-encoder")
        for start, schedule, count in plan:
            result = bdmc(
                jax.random.key(args.seed),
                jaxgen.Gaussian.standard(20),
                generator,
                observation,
                kernels.HMC(2 if args.smoke else 10),
                getattr(schedules, schedule)(count),
                encoder=encoder if start == "encoder" else None,
                num_pairs=2 if args.smoke else 16,
                num_chains=2 if args.smoke else 16,
            )
            row = {
                "model": name,
                "start": start,
                "schedule": schedule,
                "T": count,
                "lower": round(float(result.lower.mean()), 2),
                "upper": round(float(result.upper.mean()), 2),
                "gap": round(result.gap, 3),
                "gap_se": round(result.gap_standard_error, 3),
                "largest_gap": round(float(np.max(result.upper - result.lower)), 3),
                "ess": round(float(result.forward.ess.mean()), 1),
                "acceptance": round(float(result.forward.acceptance_rate.mean()), 3),
                "gradients_per_chain": round(result.num_gradients),
            }
            show(row)
            rows.append(row)
    return rows


class Published(NamedTuple):
    """The published autoencoder, and binary test digits `[10000, 28, 28, 1]`."""

    generator: Any
    encoder: Encoder
    images: np.ndarray


def published(scratch):
    """Return the published MNIST autoencoder, converted into `scratch`; None without one."""
    file = WEIGHTS / "torch_mnist_vae" / "vae_epoch_25.pth"
    data = WEIGHTS / "images" / "mnist_t10k-images-idx3-ubyte.gz"
    if not (file.is_file() and data.is_file()):
        return None
    sys.path.insert(0, str(ROOT))
    from weights_convert.pytorch import convert, load_state

    path = Path(scratch) / "mnist_vae.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    convert(file, "vae-decoder", path, force=True)
    state = {k: np.asarray(v, np.float32) for k, v in load_state(file).items()}
    both = [
        np.concatenate([state[f"fc2{i}.{kind}"] for i in (1, 2)]) for kind in ("weight", "bias")
    ]
    encoder = Encoder(layers((state["fc1.weight"].T, state["fc1.bias"]), (both[0].T, both[1])))
    images = (read_idx(data)[..., None] >= 128).astype(np.float32)
    return Published(jaxgen.load(path), encoder, images)


def digits(args):
    """Question 2, or the reason why not."""
    network = None if args.smoke else published(args.scratch)
    if network is None:
        return {"skipped": "smoke" if args.smoke else f"no published autoencoder in {WEIGHTS}"}
    generator, encoder = network.generator, network.encoder
    images = network.images[: args.digits]
    runs = {}
    for start, betas, q in (
        ("encoder", schedules.linear(200), encoder),
        ("prior", schedules.sigmoid(1000), None),
    ):
        result = loglik(
            jax.random.key(args.seed),
            generator,
            images,
            BernoulliObservation(),
            prior=jaxgen.Gaussian.standard(20),
            encoder=q,
            kernel=kernels.HMC(10),
            betas=betas,
            check=16,
        )
        runs[start] = {
            "mean_log_prob": round(result.mean, 2),
            "over_images": round(result.mean_standard_error, 2),
            "estimation_error": round(result.estimation_error, 3),
            "bits_per_dimension": round(result.bits_per_dimension, 4),
            "gap": round(result.gap, 3),
            "gap_se": round(result.gap_standard_error, 3),
            "mean_ess": round(float(result.ess.mean()), 1),
            "gradients_per_chain": round(result.num_gradients),
            "notes": result.notes,
        }
        show({"digits": start, **runs[start]})
    sampled, error, ess = importance_loglik(
        jax.random.key(args.seed),
        generator,
        images,
        BernoulliObservation(),
        encoder,
        num_samples=2000,
    )
    runs["importance_2000"] = {
        "mean_log_prob": round(float(sampled.mean()), 2),
        "estimation_error": round(float(np.sqrt(np.sum(error**2)) / len(error)), 3),
        "mean_ess": round(float(ess.mean()), 1),
    }
    show({"digits": "importance_2000", **runs["importance_2000"]})
    return {"images": len(images), **runs}


def small_autoencoder(key, images, steps, latent=2, hidden=64):
    """Train a tiny Bernoulli autoencoder on binary images by Adam."""
    keys = jax.random.split(key, 4)

    def matrix(key, rows, columns):
        return jax.random.normal(key, (rows, columns)) / np.sqrt(rows), jnp.zeros(columns)

    q = Encoder(layers(matrix(keys[0], 784, hidden), matrix(keys[1], hidden, 2 * latent)))
    g = Decoder(layers(matrix(keys[2], latent, hidden), matrix(keys[3], hidden, 784)))
    optimizer = optax.adam(3e-3)

    def loss(nets, batch, key):
        q, g = nets

        def one(image, noise):
            mean, log_variance = q(image)
            logits = g.net(mean + jnp.exp(0.5 * log_variance) * noise)
            flat = image.reshape(-1)
            fit = jnp.sum(flat * logits - jax.nn.softplus(logits))
            return -fit + 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - log_variance - 1)

        return jnp.mean(jax.vmap(one)(batch, jax.random.normal(key, (len(batch), latent))))

    @jax.jit
    def step(nets, state, key):
        pick, noise = jax.random.split(key)
        batch = images[jax.random.randint(pick, (64,), 0, len(images))]
        value, gradient = jax.value_and_grad(loss)(nets, batch, noise)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(nets, updates), state, value

    nets, state = (q, g), optimizer.init((q, g))
    for i in range(steps):
        nets, state, value = step(nets, state, jax.random.fold_in(key, i))
    return *nets, float(value)


def agreement(args):
    """Question 3."""
    from jaxgen.data import examples as shipped

    grey = fashion_mnist("train").images[:10_000] if fashion_mnist_available() else shipped().images
    images = (grey.reshape(-1, 28, 28, 1) >= 128).astype(np.float32)
    encoder, decoder, value = small_autoencoder(
        jax.random.key(args.seed), jnp.asarray(images), 20 if args.smoke else 1500
    )
    chosen = images[: 2 if args.smoke else 20]
    observation = BernoulliObservation()
    annealed = loglik(
        jax.random.key(args.seed),
        decoder,
        chosen,
        observation,
        encoder=encoder,
        kernel=kernels.HMC(2 if args.smoke else 10),
        betas=schedules.linear(4 if args.smoke else 200),
        num_chains=4 if args.smoke else 64,
    )
    samples = 100 if args.smoke else 20_000
    value_is, error_is, ess_is = importance_loglik(
        jax.random.key(args.seed + 1),
        decoder,
        chosen,
        observation,
        encoder,
        num_samples=samples,
        widen=4.0,  # trained encoders are too narrow, and their error bars with them
    )
    exact = integrals(decoder, jnp.asarray(chosen), 0.1 if args.smoke else 0.01)
    row = {"latents": 2, "images": len(chosen), "training_loss": round(value, 1)}
    row["mean_exact"] = round(float(exact.mean()), 3)
    for name, found, error, ess in (
        ("ais", annealed.log_prob, annealed.standard_error, annealed.ess),
        ("importance", value_is, error_is, ess_is),
    ):
        off = np.abs(found - exact) / error
        row[name] = {
            "mean": round(float(np.mean(found)), 3),
            "largest_difference": round(float(np.abs(found - exact).max()), 4),
            "largest_errors_off": round(float(off.max()), 2),
            "rms_errors_off": round(float(np.sqrt(np.mean(off**2))), 2),
            "median_standard_error": round(float(np.median(error)), 4),
            "median_ess": round(float(np.median(ess)), 1),
        }
    both = np.abs(annealed.log_prob - value_is) / np.hypot(annealed.standard_error, error_is)
    row["largest_errors_apart"] = round(float(both.max()), 2)
    show(row)
    return row


def integrals(decoder, images, spacing, reach=6.0):
    """log p(x) of binary images by summing p(z) p(x | z) over a grid of the plane: `[N]`."""
    axis = np.arange(-reach, reach + spacing / 2, spacing, dtype=np.float32)
    flat = images.reshape(len(images), -1).T

    @jax.jit
    def line(first):
        z = jnp.stack([jnp.full(len(axis), first), jnp.asarray(axis)], axis=1)
        logits = jax.vmap(decoder.net)(z)
        likelihood = logits @ flat - jnp.sum(jax.nn.softplus(logits), axis=1, keepdims=True)
        prior = -0.5 * jnp.sum(z**2, axis=1, keepdims=True) - np.log(2 * np.pi)
        return jax.nn.logsumexp(likelihood + prior, axis=0)

    lines = np.stack([np.asarray(line(first)) for first in axis]).astype(np.float64)
    return np.logaddexp.reduce(lines, axis=0) + 2 * np.log(spacing)


def show(row):
    """One line for the reader, on stderr."""
    print(row, file=sys.stderr, flush=True)


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--digits", type=int, default=50)
    options.add_argument(
        "--scratch", default=f"{tempfile.gettempdir()}/jaxgen-loglik", help="for converted weights"
    )
    options.add_argument("--only", choices=("gaps", "digits", "agreement"))
    args = options.parse_args()
    rows = gaps(args) if args.only in (None, "gaps") else []
    wanted = [row for row in rows if (row["start"], row["T"]) == ("encoder", 200)]
    common.report(
        "loglik",
        standard_budget_gap_below_1=bool(wanted) and all(row["gap"] < 1 for row in wanted),
        rows=rows or [{}],
        digits=digits(args) if args.only in (None, "digits") else None,
        agreement=agreement(args) if args.only in (None, "agreement") else None,
    )


if __name__ == "__main__":
    main()
