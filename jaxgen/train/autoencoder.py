"""Training a denoising autoencoder: R(x + sigma n) towards x, by squared error.

    L = E |R(x + sigma n) - x|^2,   n ~ N(0, I)

At its optimum (R(x) - x) / sigma^2 is the score of the data blurred by N(0, sigma^2)
(Alain & Bengio 2014). Errors are divided by the data's variance, so that a loss of 1 says
nothing was learned.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.train.averaging import averaged
from jaxgen.train.loop import Step

__all__ = ["AutoencoderConfig", "AutoencoderState", "init", "make_step"]


class AutoencoderConfig(NamedTuple):
    """Hyper-parameters; the cosine ends at `steps`.

    `noise` is sigma: in pixels' units, or, for codes, as a share of their mean, since
    codes of every encoder have their own scale (the paper's sigma of 1 is about 10%).
    """

    steps: int
    of: str = "codes"
    noise: float = 0.1
    batch: int = 128
    lr: float = 1e-3
    ema: float = 0.998


class AutoencoderState(NamedTuple):
    """Everything that a step reads and writes."""

    params: ArrayTree
    average: ArrayTree
    opt: optax.OptState
    step: Array


def init(module: nnx.Module, config: AutoencoderConfig) -> AutoencoderState:
    """Return the state before the first update."""
    params = nnx.state(module)
    return AutoencoderState(
        params,
        jax.tree.map(jnp.array, params),
        _optimiser(config).init(params),
        jnp.zeros((), jnp.int32),
    )


def make_step(module: nnx.Module, config: AutoencoderConfig, sigma: float, variance: float) -> Step:
    """Return the update on clean samples `[B, ...]`; `variance` is that of their elements."""
    graphdef = nnx.graphdef(module)
    optimiser = _optimiser(config)

    def step(
        state: AutoencoderState, clean: Array, key: PRNGKey
    ) -> tuple[AutoencoderState, dict[str, Array]]:
        noisy = clean + sigma * jax.random.normal(key, clean.shape)

        def loss_of(params: ArrayTree) -> Array:
            return jnp.mean((nnx.merge(graphdef, params)(noisy) - clean) ** 2) / variance

        loss, grads = jax.value_and_grad(loss_of)(state.params)
        updates, opt = optimiser.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        average = averaged(state.average, params, state.step, config.ema)
        return AutoencoderState(params, average, opt, state.step + 1), {"loss": loss}

    return step  # type: ignore[return-value]


def _optimiser(config: AutoencoderConfig) -> optax.GradientTransformation:
    warmup = min(100, config.steps // 2)
    return optax.adam(optax.warmup_cosine_decay_schedule(0.0, config.lr, warmup, config.steps))
