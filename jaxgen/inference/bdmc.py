"""Bidirectional Monte Carlo: log evidence between two stochastic bounds.

Annealed importance sampling from the prior gives E[Z^] = Z, so log Z^ lies below log Z on
average. The same path run backwards, from ONE EXACT posterior draw, gives E[1/Z^'] = 1/Z,
so log Z^' lies above. For data simulated from the model, (z, x) ~ p(z) p(x | z), the very z
is an exact draw from p(z | x), and the gap between the two bounds says how far either may be
from the truth (Grosse, Ghahramani & Adams 2015; for decoders, Wu et al. 2017, Sec. 3).

Both directions keep schedule and steps fixed: the bounds are bounds whatever their length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.deprecation import former_keyword
from jaxgen.core.errors import expected
from jaxgen.core.keys import as_key
from jaxgen.core.precision import at_precision
from jaxgen.core.printing import card, card_html, number
from jaxgen.core.pytree import pytree, with_structure
from jaxgen.core.table import Table
from jaxgen.core.tracing import is_traced, namespace
from jaxgen.core.types import Array, ArrayTree, Density, Encoder, Generator, Prior, PRNGKey
from jaxgen.inference import batched as many
from jaxgen.inference.ais import ais
from jaxgen.inference.batched import BatchedEvidence
from jaxgen.kernels import HMC, Kernel
from jaxgen.sampler.results import AISResult
from jaxgen.target.observations import Observation
from jaxgen.target.path import AnnealedPath, Target, geometric_path, likelihood_path
from jaxgen.target.posterior import Posterior
from jaxgen.target.priors import Gaussian
from jaxgen.tempering.betas import Betas, check_betas, sigmoid
from jaxgen.tempering.step_size import PerTemperature, StepSize

__all__ = [
    "BDMCResult",
    "DecoderPaths",
    "bdmc",
    "reverse_ais",
    "reverse_betas",
    "reverse_path",
    "reverse_steps",
    "simulate",
]


@pytree
class Negative:
    """-density(z)."""

    density: Density

    def __call__(self, z: ArrayTree) -> Array:
        """-density(z)."""
        return -self.density(z)


@pytree
class ExactDraw:
    """A given exact draw from a density: where every chain of a reverse run starts.

    Attributes:
      position: the draw.
      density: the log density that it was drawn from; as `log_prob` it makes the first
        importance weight 1.
      scale: standard deviations that kernels with a mass start from, as of the forward start.
    """

    position: ArrayTree
    density: Density
    scale: ArrayTree

    def sample(self, key: PRNGKey) -> ArrayTree:
        """Return the draw itself."""
        # The key takes part so that each chain has a value of its own, on its own device.
        nothing = 0.0 * jax.random.uniform(key)
        return jax.tree.map(lambda x: x + nothing.astype(x.dtype), self.position)

    def log_prob(self, z: ArrayTree) -> Array:
        """Return the log density that it is a draw of, not normalised."""
        return self.density(z)


def reverse_path(path: AnnealedPath, z_exact: ArrayTree) -> AnnealedPath:
    """Return the path backwards: base' = base + tilt, tilt' = -tilt, started at an exact draw.

    log p'_beta'(z) = base(z) + (1 - beta') tilt(z), so beta' = 1 - beta. Annealed importance
    sampling along it estimates Z(base) / Z(target), which is 1 / Z for a normalised base.

    Args:
      path: the forward path.
      z_exact: a draw from its target at beta = 1, in the coordinates of `path.start`.
    """
    target = Target(path)
    scale = getattr(path.start, "scale", None)
    scale = jax.tree.map(jnp.ones_like, z_exact) if scale is None else scale
    start = ExactDraw(z_exact, target, scale)
    return AnnealedPath(target, Negative(path.tilt), start, base_is_cheap=False)


def reverse_betas(betas: Betas) -> np.ndarray:
    """beta'_t = 1 - beta_{T - t}, of the forward schedule from 0 to 1."""
    forward = check_betas(betas)
    if forward[0] != 0 or abs(forward[-1] - 1) > 1e-9:
        raise expected("betas", "a schedule from 0 to 1", f"[{forward[0]}, {forward[-1]}]")
    return 1.0 - forward[::-1]


def reverse_steps(step_sizes: Any) -> np.ndarray:
    """Return the forward table of steps `[..., T]` in the order that a reverse run needs.

    Reverse temperature t stands at the forward beta_{T - t}. At beta = 0, where the forward
    run never moves, the step of beta_1 serves.
    """
    xp = namespace(step_sizes)
    table = xp.asarray(step_sizes, np.float32)
    return xp.concatenate([table[..., :-1][..., ::-1], table[..., :1]], axis=-1)


@former_keyword("moves", "num_mcmc_steps")
def reverse_ais(
    key: PRNGKey,
    path: AnnealedPath | Posterior,
    z_exact: ArrayTree,
    kernel: Kernel | None = None,
    betas: Betas = None,
    *,
    num_chains: int = 16,
    step_size: StepSize = 0.1,
    **options: Any,
) -> AISResult:
    """Estimate a stochastic upper bound on log Z, from one exact draw of the target.

    Args:
      key: the run's key.
      path: the FORWARD path, or a posterior (`likelihood_path`).
      z_exact: an exact draw of its target; all chains start there. Where the data were
        simulated from the model it is the latent that they were simulated from.
      kernel: as in `ais`.
      betas: the FORWARD schedule `[T + 1]`, from 0 to 1; sigmoid(500) by default.
      num_chains: C.
      step_size: a number or a `PerTemperature` table of the FORWARD run.
      options: further ones of `ais`.

    Returns:
      An `AISResult` whose `log_z` is the upper bound, -log(mean weight), for a normalised
      start. Its standard error is given `z_exact`: how the bound varies over exact draws,
      one run cannot see.

    Raises:
      InputError: as `ais`, and for a schedule that does not go from 0 to 1.
    """
    if isinstance(path, Posterior):
        path.check()
        path = likelihood_path(path)
    if isinstance(step_size, PerTemperature):
        step_size = PerTemperature(jnp.asarray(reverse_steps(step_size.step_sizes)))
    backwards = reverse_betas(sigmoid(500) if betas is None else betas)
    result = ais(
        key,
        reverse_path(path, z_exact),
        kernel,
        backwards,
        num_chains=num_chains,
        step_size=step_size,
        **options,
    )
    return result._replace(log_z=-result.log_z)


@pytree
class DecoderPaths:
    """image -> the path whose evidence is log p(image) under a decoder.

    Attributes:
      prior: over latents, normalised.
      generator: the decoder.
      observation: p(image | decoder's image), an `Observation`.
      encoder: image -> `[2, D]`, mean and log variance of q(z | image), or None. With it the
        path is q^(1 - beta) p(z, image)^beta and begins near its end (Wu et al. 2017, A.2).
    """

    prior: Prior
    generator: Generator
    observation: Any
    encoder: Encoder | None = None

    def posterior(self, image: Array) -> Posterior:
        """p(z | image), not normalised."""
        return Posterior(self.prior, self.generator, self.observation.condition(image))

    def start(self, image: Array) -> Gaussian:
        """q(z | image), of the encoder."""
        assert self.encoder is not None, "these paths start at the prior"
        mean, log_variance = self.encoder(image)
        return Gaussian(mean, jnp.exp(0.5 * log_variance))

    def __call__(self, image: Array) -> AnnealedPath:
        """Return the path for one image."""
        posterior = self.posterior(image)
        if self.encoder is None:
            return likelihood_path(posterior)
        return geometric_path(self.start(image), posterior)


@pytree
class Reversed:
    """(item, exact draw) -> the reversed path of another family."""

    paths: Any

    def __call__(self, item: tuple[Any, ArrayTree]) -> AnnealedPath:
        """Return the reversed path."""
        return reverse_path(self.paths(item[0]), item[1])


_APART = "the bounds are {:.1f} nats apart: use more temperatures or num_mcmc_steps"
_TRACED = (
    "made under jax.jit or jax.vmap: a gap above 1 asks for more temperatures or num_mcmc_steps"
)


@with_structure("notes")
class BDMCResult(NamedTuple):
    """Bounds on N log evidences of simulated data, NumPy arrays.

    Attributes:
      lower, upper: `[N]` stochastic bounds in nats.
      gap: mean of upper - lower; it bounds the mean error of either, in expectation.
      gap_standard_error: over the N pairs.
      latents: `[N, ...]` exact draws, in the prior's coordinates.
      images: `[N, ...]` what was simulated from them.
      forward, reverse: the runs.
      num_gradients: of one chain in both directions and in the pilot run.
      notes: what to know before trusting it.
    """

    lower: np.ndarray
    upper: np.ndarray
    gap: float
    gap_standard_error: float
    latents: ArrayTree
    images: np.ndarray
    forward: BatchedEvidence
    reverse: BatchedEvidence
    num_gradients: float
    notes: tuple[str, ...]

    def summary(self) -> Table:
        """Return a table with a row for each pair: the lower and the upper bound."""
        names = [f"pair {i}" for i in range(np.shape(self.lower)[0])]
        return Table(names, {"lower": self.lower, "upper": self.upper})

    def __repr__(self) -> str:
        return card(*_printed(self))

    def _repr_html_(self) -> str:
        return card_html(*_printed(self))


def _printed(found: BDMCResult) -> tuple[str, list[tuple[str, str]], tuple[str, ...]]:
    """Title, rows and notes of a `BDMCResult`."""
    count = np.shape(found.lower)[-1]
    rows = [
        ("gap", f"{number(found.gap)} +- {number(found.gap_standard_error)} nats"),
        ("gradients", f"{number(found.num_gradients, ',.0f')} per chain"),
    ]
    if not is_traced(found.lower):
        low, high = float(np.mean(found.lower)), float(np.mean(found.upper))
        rows.insert(0, ("log Z", f"between {low:.2f} and {high:.2f} on average"))
    return f"BDMCResult: {count} simulated pair{'s' * (count != 1)}", rows, found.notes


def simulate(key: PRNGKey, paths: DecoderPaths, count: int) -> tuple[ArrayTree, Array]:
    """Pairs from the model: latents z ~ p(z) and images x ~ p(x | G(z)), `[count, ...]`."""
    return _simulate(jax.random.split(key, count), paths)


@jax.jit
def _simulate(keys: Array, paths: DecoderPaths) -> tuple[ArrayTree, Array]:
    def one(key: PRNGKey) -> tuple[ArrayTree, Array]:
        key_z, key_x = jax.random.split(key)
        z = paths.prior.sample(key_z)
        image = paths.generator(paths.prior.latent(z))
        return z, paths.observation.sample(key_x, image)

    return jax.vmap(one)(keys)


@former_keyword("moves", "num_mcmc_steps")
@at_precision
def bdmc(
    key: PRNGKey,
    prior: Prior,
    generator: Generator,
    observation: Observation,
    kernel: Kernel | None = None,
    betas: Betas = None,
    *,
    encoder: Encoder | None = None,
    num_pairs: int = 16,
    num_chains: int = 16,
    num_mcmc_steps: int = 1,
    step_sizes: Any = None,
    batch: int | None = None,
    precision: str = "highest",
    progress: many.Progress | None = None,
) -> BDMCResult:
    """Simulate pairs (z, x) from the model and bound log p(x) from both sides.

    Args:
      key: the run's key.
      prior: a density prior, `Gaussian.standard(D)` say.
      generator: the decoder.
      observation: an observation model of `jaxgen.target.observations`.
      kernel: HMC(10) by default.
      betas: `[T + 1]` from 0 to 1; sigmoid(500) by default.
      encoder: starts the path at q(z | x), see `DecoderPaths`.
      num_pairs: N.
      num_chains: C for each pair and direction.
      num_mcmc_steps: kernel steps at each temperature.
      step_sizes: a number, or a table `[T]` or `[N, T]`; None learns one in a pilot run and
        freezes it for both directions.
      batch: pairs in one program; None for all.
      precision: of matrix products: "highest" (float32 on every device) or "fast", as JAX is
        set up.
      progress: called with (temperatures done, in all) of each direction.

    Returns:
      A `BDMCResult`.

    Raises:
      InputError: for arguments that cannot be used.
    """
    key = as_key(key)
    kernel = HMC(10) if kernel is None else kernel
    betas = check_betas(sigmoid(500) if betas is None else betas)
    backwards = reverse_betas(betas)
    observation.check()
    paths = DecoderPaths(prior, generator, observation, encoder)
    key_pairs, key_pilot, key_forward, key_reverse = jax.random.split(key, 4)
    latents, images = simulate(key_pairs, paths, num_pairs)
    kernel.check(reverse_path(paths(images[0]), jax.tree.map(lambda z: z[0], latents)))

    spent = 0.0
    if step_sizes is None:
        step_sizes, spent = many.pilot(key_pilot, paths, images, kernel, betas, batch=batch)
    settings = {
        "num_chains": num_chains,
        "num_mcmc_steps": num_mcmc_steps,
        "batch": batch,
        "progress": progress,
    }
    xp = namespace(key, prior, generator, observation, encoder)
    table = xp.broadcast_to(xp.asarray(step_sizes, np.float32), (num_pairs, len(betas) - 1))
    forward = many.anneal(key_forward, paths, images, kernel, betas, table, **settings)
    reverse = many.anneal(
        key_reverse,
        Reversed(paths),
        (images, latents),
        kernel,
        backwards,
        reverse_steps(table),
        **settings,
    )
    reverse = reverse._replace(log_z=-reverse.log_z)
    gaps = reverse.log_z - forward.log_z
    error: Any = xp.std(gaps, ddof=1) / np.sqrt(num_pairs) if num_pairs > 1 else np.nan
    gap = xp.mean(gaps)
    # Backwards the base is a network: a gradient more for each step.
    spent = spent + forward.num_gradients.mean() + reverse.num_gradients.mean()
    spent = spent + num_mcmc_steps * (len(betas) - 1)
    if xp is not np:
        notes: tuple[str, ...] = (_TRACED,)
    else:
        gap, error, spent = float(gap), float(error), float(spent)
        notes = (_APART.format(gap),) if gap > 1 else ()
    return BDMCResult(
        lower=forward.log_z,
        upper=reverse.log_z,
        gap=gap,
        gap_standard_error=error,
        latents=latents,
        images=xp.asarray(images),
        forward=forward,
        reverse=reverse,
        num_gradients=spent,
        notes=notes,
    )
