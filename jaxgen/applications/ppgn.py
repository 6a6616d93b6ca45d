"""Plug & Play Generative Networks and DGN-AM: chains in a code space, from class to class.

    h' = h + e1 (R(h) - h) + e2 d log p(y|h)/dh + N(0, e3^2)          (PPGN, Eqs. 5 and 6)

A code h makes an image x = G(h), a condition network says p(y|x), and a prior, known by a
reconstruction R alone, says which codes are likely: R(h) - h is its score times sigma^2
(Alain & Bengio 2014). The variants of Nguyen et al. (CVPR 2017) differ in G and R only:

- PPGN-x: G the identity, R a denoising autoencoder of images (`Denoised`);
- DGN-AM (Nguyen et al. 2016): no prior;
- PPGN-h: R a denoising autoencoder of codes (`Denoised`);
- Joint and Noiseless Joint PPGN-h: R = E(G(.)) (`Encoded`), G trained with noise or without.

`PPGNUpdate()` follows Eq. 5 literally, and is what `kernels.MALAApprox` does; `PPGNUpdate.ppgn()`
and `PPGNUpdate.dgnam()` are the updates of the authors' programs, which rescale every step. None
of them accepts or rejects: all are approximate, and DGN-AM is ascent.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.applications.plug_and_play import Denoised, Encoded, PlugAndPlay, Unit
from jaxgen.applications.ppgn_update import ClassGradient, PPGNUpdate, class_gradient, update
from jaxgen.core.deprecation import former_names
from jaxgen.core.errors import check_integer, expected
from jaxgen.core.printing import prints_short
from jaxgen.core.types import Array, Exactness, PRNGKey
from jaxgen.sampler.sharding import over_chains
from jaxgen.target.priors import normal_like

__all__ = [
    "ClassGradient",
    "Denoised",
    "Encoded",
    "PPGNResult",
    "PPGNUpdate",
    "PlugAndPlay",
    "Unit",
    "class_gradient",
    "run_chains",
    "update",
]

__getattr__ = former_names(
    __name__, {"Rule": "PPGNUpdate", "Walk": "PPGNResult", "walk": "run_chains"}
)

# Code and epsilon 1 between two steps; code and probability that are kept of a step.
_Carry: TypeAlias = tuple[Array, Array]


@prints_short
class PPGNResult(NamedTuple):
    """The codes of chains. S steps were kept; of a step, the code before it is kept.

    Attributes:
      codes: `[C, S, ...]`.
      probabilities: `[C, S]` p(label | image) of the label that the chain was after.
      labels: `[S]` that label.
      last: `[C, ...]` the codes after the last step.
      num_gradients: for each chain.
      exactness: "approximate".
    """

    codes: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray
    last: Array
    num_gradients: int
    exactness: Exactness = "approximate"

    def confident(self, threshold: float = 0.97) -> tuple[np.ndarray, np.ndarray]:
        """Return codes `[n, ...]` and labels `[n]` of the steps whose probability is high enough.

        This is the filter of the paper's Figs. S11, S12 and S19. It makes a picture look better,
        and the sample no better.
        """
        keep = self.probabilities >= threshold
        labels = np.broadcast_to(self.labels[None], keep.shape)
        return self.codes[keep], labels[keep]


def run_chains(
    key: PRNGKey,
    model: PlugAndPlay,
    labels: ArrayLike,
    rule: PPGNUpdate | None = None,
    *,
    num_steps: int = 200,
    num_chains: int = 10,
    every: int = 1,
    start: object = None,
    reset_every: int | None = None,
    tile: int | None = None,
) -> PPGNResult:
    """Run chains through a list of classes, a number of steps for each.

    Args:
      key: consumed; chain i uses `fold_in(key, i)` alone.
      model: generator, condition network and prior.
      labels: classes (or channels of a `Unit`), one after the other, the same for all chains.
      rule: how to move; `PPGNUpdate()` by default, whose numbers fit the paper's codes: choose
        epsilons for others.
      num_steps: for each class. As in the authors' program, `compat="ppgn"` gives the first
        class one step more.
      num_chains: C.
      every: keep one of this many steps, the first one included.
      start: codes to start from: of one image for all chains (E(x) of a real one), or
        `[C, ...]`; None to draw them from `model.start`.
      reset_every: draw a new code after this many steps. With `compat="ppgn"` epsilon1 is then
        drawn anew as well, from U(1e-6, 1e-2), as there.
      tile: chains moved in one batch; None for all.

    Returns:
      A `PPGNResult`.

    Raises:
      InputError: for arguments that cannot be used.
    """
    rule = PPGNUpdate() if rule is None else rule
    model.check(labels)
    rule.check()
    for name, value in (("num_steps", num_steps), ("num_chains", num_chains), ("every", every)):
        check_integer(name, value, 1)
    if reset_every is not None:
        check_integer("reset_every", reset_every, 1)
    like = jax.eval_shape(model.start.sample, jax.random.key(0))
    if start is not None:
        start = jnp.asarray(start, like.dtype)
        if start.shape not in (like.shape, (num_chains, *like.shape)):
            raise expected("start", f"{like.shape} or {(num_chains, *like.shape)}", start.shape)
        start = jnp.broadcast_to(start, (num_chains, *like.shape))
    classes = np.repeat(np.asarray(labels, np.int32), num_steps)
    if rule.compat == "ppgn":
        classes = np.concatenate([classes[:1], classes])
    codes, probabilities, last = _run_chains(
        key,
        model,
        rule,
        jnp.asarray(classes),
        start,
        num_steps=num_steps,
        num_chains=num_chains,
        every=every,
        reset_every=reset_every,
        tile=tile,
    )
    return PPGNResult(
        np.asarray(codes), np.asarray(probabilities), classes[::every], last, len(classes)
    )


@functools.partial(
    jax.jit, static_argnames=("num_steps", "num_chains", "every", "reset_every", "tile")
)
def _run_chains(
    key: PRNGKey,
    model: PlugAndPlay,
    rule: PPGNUpdate,
    classes: Array,
    start: Array | None,
    *,
    num_steps: int,
    num_chains: int,
    every: int,
    reset_every: int | None,
    tile: int | None,
) -> tuple[Array, Array, Array]:
    first, last = jnp.asarray(rule.first_step), jnp.asarray(rule.last_step)

    def one(chain_key: PRNGKey, given: Array | None) -> tuple[Array, Array, Array]:
        def body(carry: _Carry, i: Array) -> tuple[_Carry, tuple[Array, Array]]:
            code, epsilon1 = carry
            step_key, reset_key, epsilon_key = jax.random.split(
                jax.random.fold_in(chain_key, i + 1), 3
            )
            if reset_every is not None:
                due = (i > 0) & (i % reset_every == 0)
                code = jnp.where(due, model.start.sample(reset_key), code)
                if rule.compat == "ppgn":
                    new = jax.random.uniform(epsilon_key, (), minval=1e-6, maxval=1e-2)
                    epsilon1 = jnp.where(due, new, epsilon1)
            # With a second class the program's step would pass its last value: held here.
            step = first + (last - first) * jnp.minimum(i / num_steps, 1.0)
            mine = dataclasses.replace(rule, epsilon1=epsilon1)
            noise = normal_like(step_key, code)
            new, probability = update(model, mine, code, classes[i], step, noise)
            return (new, epsilon1), (code, probability)

        drawn = model.start.sample(jax.random.fold_in(chain_key, 0)) if given is None else given
        begin = (drawn, jnp.asarray(rule.epsilon1, jnp.float32))

        def group(carry: _Carry, first: Array) -> tuple[_Carry, tuple[Array, Array]]:
            """Keep the first of `every` steps, so that memory is that of the kept codes."""
            carry, kept = jax.lax.scan(body, carry, first + jnp.arange(every))
            return carry, jax.tree.map(lambda x: x[0], kept)

        whole, rest = divmod(classes.shape[0], every)
        carry, kept = jax.lax.scan(group, begin, every * jnp.arange(whole))
        if rest:
            carry, more = jax.lax.scan(body, carry, every * whole + jnp.arange(rest))
            kept = jax.tree.map(lambda a, b: jnp.concatenate([a, b[:1]]), kept, more)
        codes, probabilities = kept
        return codes, probabilities, carry[0]

    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_chains))
    if start is None:
        return over_chains(lambda k: one(k, None), (keys,), tile)
    return over_chains(one, (keys, start), tile)
