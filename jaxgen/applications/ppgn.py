"""Plug & Play Generative Networks and DGN-AM: walks in a code space from class to class.

    h' = h + e1 (R(h) - h) + e2 d log p(y|h)/dh + N(0, e3^2)          (PPGN, Eqs. 5 and 6)

A code h makes an image x = G(h), a condition network says p(y|x), and a prior, known by a
reconstruction R alone, says which codes are likely: R(h) - h is its score times sigma^2
(Alain & Bengio 2014). The variants of Nguyen et al. (CVPR 2017) differ in G and R only:

- PPGN-x: G the identity, R a denoising autoencoder of images (`Denoised`);
- DGN-AM (Nguyen et al. 2016): no prior;
- PPGN-h: R a denoising autoencoder of codes (`Denoised`);
- Joint and Noiseless Joint PPGN-h: R = E(G(.)) (`Encoded`), G trained with noise or without.

`Rule()` takes Eq. 5 at its word, and is what `kernels.MALAApprox` does; `Rule.ppgn()` and
`Rule.dgnam()` are the updates of the authors' programs, which rescale every step. None of
them accepts or rejects: all are approximate, and DGN-AM is ascent.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.errors import expected
from jaxgen.core.printing import prints_short
from jaxgen.core.pytree import as_data, pytree, static
from jaxgen.core.types import Array, Exactness, Generator, PRNGKey, Scalar
from jaxgen.sampler.config import check_integer
from jaxgen.sampler.sharding import over_chains
from jaxgen.target.priors import Gaussian, normal_like

__all__ = [
    "ClassGradient",
    "Denoised",
    "Encoded",
    "PlugAndPlay",
    "Rule",
    "Unit",
    "Walk",
    "class_gradient",
    "update",
    "walk",
]

ClassGradient = Literal["logit", "softmax", "log_softmax", "ppgn"]
_GRADIENTS = ("logit", "softmax", "log_softmax", "ppgn")


@pytree
class Denoised:
    """R(h) by a denoising autoencoder of codes (or of images, where codes are images)."""

    autoencoder: Any

    def __call__(self, code: Array, image: Array) -> Array:
        """autoencoder(code)."""
        return self.autoencoder(code)


@pytree
class Encoded:
    """R(h) = E(G(h)): generator and encoder together are the autoencoder of codes."""

    encoder: Any

    def __call__(self, code: Array, image: Array) -> Array:
        """encoder(image), the image being G(code), clamped where pixels are known."""
        return self.encoder(image)


@pytree
class Unit:
    """A convolution's channels at one place, as the logits of a condition network.

    The softmax is then over channels at that place, and a label is a channel: PPGN's
    conditioning on hidden units. In the authors' code the layer is taken before its ReLU.

    Attributes:
      network: a network cut at a layer `[H, W, channels]`, as `classifier.at("conv4")`.
      position: (row, column).
    """

    network: Any
    position: tuple[Any, Any]

    def __call__(self, image: Array) -> Array:
        """Return the activations at the position: `[channels]`."""
        return self.network(image)[self.position[0], self.position[1]]


@pytree
class PlugAndPlay:
    """A generator with a condition network plugged in.

    Attributes:
      generator: code -> image `[H, W, channels]`.
      classifier: image -> logits `[K]`: of classes, or a `Unit`.
      prior: (code, image) -> R(h), `Denoised` or `Encoded`; None for no prior at all.
      start: codes that chains start from, and are reset to, are drawn from it: N(0, I) over
        the code's shape in both papers' programs.
      mask: None, or 1 where pixels are missing and 0 where they are known (M of Eq. 25),
        of the image's shape. Known pixels are put into each image before classifier and
        prior see it: x <- M x + (1 - M) x_real.
      real: the image that is known where mask is 0.
    """

    generator: Generator
    classifier: Callable[[Array], Array]
    prior: Callable[[Array, Array], Array] | None
    start: Gaussian
    mask: Array | None = None
    real: Array | None = None

    def __post_init__(self) -> None:
        for name in ("generator", "classifier"):
            object.__setattr__(self, name, as_data(getattr(self, name)))

    def image(self, code: Array) -> Array:
        """G(code), stitched into the known pixels where there are any."""
        return _clamp(self, self.generator(code))

    def check(self, labels: ArrayLike) -> None:
        """Raise `InputError` where the networks do not fit, or a label is none."""
        code = jax.eval_shape(self.start.sample, jax.random.key(0))
        try:
            image = jax.eval_shape(self.generator, code)
            logits = jax.eval_shape(self.classifier, image)
        except (TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise expected("PlugAndPlay", "networks that fit each other", reason) from error
        if len(logits.shape) != 1:
            raise expected("classifier", "logits [K] for one image", f"shape {logits.shape}")
        if self.prior is not None:
            back = jax.eval_shape(self.prior, code, image)
            if back.shape != code.shape:
                raise expected("prior", f"codes of shape {code.shape}", f"shape {back.shape}")
        if (self.mask is None) != (self.real is None):
            raise expected("mask, real", "both or neither", "one of them")
        for name, value in (("mask", self.mask), ("real", self.real)):
            if value is not None and np.shape(value) != image.shape:
                raise expected(name, f"shape {image.shape} like the image", np.shape(value))
        labels = np.asarray(labels)
        if labels.ndim != 1 or not labels.size or not np.issubdtype(labels.dtype, np.integer):
            raise expected("labels", "a list of class indices", labels)
        if labels.min() < 0 or labels.max() >= logits.shape[0]:
            raise expected("labels", f"integers from 0 to {logits.shape[0] - 1}", labels)


@pytree
class Rule:
    """How a code moves; every number is data.

    With d = e1 (R(h) - h) + e2 J^T g + e4 J^T c, g the class gradient in image space,
    c = (1 - M) (x_real - x) the pull of the context, n ~ N(0, I), and the step a_i going
    linearly from `first_step` to `last_step` over the steps of a class:

    - compat None:    h' = clip(h + a d + e3 n) decay
    - compat "ppgn":  d <- d + e3 n;  h' = clip(h + a d / mean|d|) decay
    - compat "dgnam": g <- g / mean|g|;  d = J^T (a g);  h' = clip(h + a d / mean|d|) decay

    A step that is not finite, or has no direction, is left out.

    Attributes:
      epsilon1, epsilon2, epsilon3: of prior, condition and noise.
      epsilon4: of the context, where pixels are known (PPGN-context).
      first_step, last_step: a_i.
      decay: h is multiplied by it after each step (DGN-AM's L2 regularisation).
      low, high: codes are clipped to them: numbers, or arrays of the code's shape (DGN-AM has
        an upper bound for each unit).
      gradient: what g is the gradient of: "log_softmax" (the log of a probability; the right
        one), "logit", "softmax" (Table S2 a and b), or "ppgn": (1 - p) d logit, which is what
        the authors' program really computes.
      compat: which program, or None for Eq. 5.
    """

    epsilon1: Scalar = 1e-5
    epsilon2: Scalar = 1.0
    epsilon3: Scalar = 1e-17
    epsilon4: Scalar = 0.0
    first_step: Scalar = 1.0
    last_step: Scalar = 1.0
    decay: Scalar = 1.0
    low: Any = -np.inf
    high: Any = np.inf
    gradient: ClassGradient = static(default="log_softmax")
    compat: Literal["ppgn", "dgnam"] | None = static(default=None)

    @classmethod
    def ppgn(cls, epsilon1: float = 1e-5, epsilon3: float = 1e-17, **more: object) -> Rule:
        """Return the program of PPGN: the step over mean |d|, codes in [0, 30] (fc6 after ReLU)."""
        given = {"low": 0.0, "high": 30.0, "gradient": "ppgn", "compat": "ppgn", **more}
        return cls(epsilon1=epsilon1, epsilon3=epsilon3, **given)

    @classmethod
    def dgnam(cls, first_step: float = 8.0, high: ArrayLike = np.inf, **more: object) -> Rule:
        """Return the program of DGN-AM: 200 steps of 8 -> 1e-10, logits, both gradients normalised.

        Give `high`, the bounds of the units (mean + 3 deviations over real images there).
        """
        given = {
            "epsilon1": 0.0,
            "epsilon3": 0.0,
            "last_step": 1e-10,
            "decay": 0.99,
            "low": 0.0,
            "gradient": "logit",
            "compat": "dgnam",
            **more,
        }
        return cls(first_step=first_step, high=high, **given)

    def check(self) -> None:
        """Raise `InputError` for numbers or names that no walk could use."""
        for name in ("epsilon1", "epsilon2", "epsilon3", "epsilon4", "first_step", "decay"):
            value = np.asarray(getattr(self, name))
            if value.ndim or not np.isfinite(value) or value < 0:
                raise expected(f"Rule.{name}", "a finite number of at least 0", value)
        if not np.all(np.asarray(self.low) < np.asarray(self.high)):
            raise expected("Rule", "low < high", f"[{self.low}, {self.high}]")
        if self.gradient not in _GRADIENTS:
            raise expected("Rule.gradient", f"one of {', '.join(_GRADIENTS)}", self.gradient)
        if self.compat not in (None, "ppgn", "dgnam"):
            raise expected("Rule.compat", 'None, "ppgn" or "dgnam"', self.compat)


@prints_short
class Walk(NamedTuple):
    """Where chains went. S steps were kept; what is kept of a step is where it began.

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
        """(codes `[n, ...]`, labels `[n]`) of the steps whose probability is high enough.

        The filter of the paper's Figs. S11, S12 and S19: it makes a picture better and the
        sample no better.
        """
        keep = self.probabilities >= threshold
        labels = np.broadcast_to(self.labels[None], keep.shape)
        return self.codes[keep], labels[keep]


def walk(
    key: PRNGKey,
    model: PlugAndPlay,
    labels: ArrayLike,
    rule: Rule | None = None,
    *,
    num_steps: int = 200,
    num_chains: int = 10,
    every: int = 1,
    start: object = None,
    reset_every: int | None = None,
    tile: int | None = None,
) -> Walk:
    """Chains that walk through a list of classes, so many steps for each.

    Args:
      key: consumed; chain i uses `fold_in(key, i)` alone.
      model: generator, condition network and prior.
      labels: classes (or channels of a `Unit`), one after the other, the same for all chains.
      rule: how to move; `Rule()` by default, whose numbers fit the paper's codes: choose
        epsilons for others.
      num_steps: for each class. As in the authors' program, `compat="ppgn"` gives the first
        class one step more.
      num_chains: C.
      every: keep every so many steps, the first one included.
      start: codes to start from: of one image for all chains (E(x) of a real one), or
        `[C, ...]`; None to draw them from `model.start`.
      reset_every: draw a new code after so many steps. With `compat="ppgn"` epsilon1 is then
        drawn anew as well, from U(1e-6, 1e-2), as there.
      tile: chains moved in one batch; None for all.

    Raises:
      InputError: for arguments that cannot be used.
    """
    rule = Rule() if rule is None else rule
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
    codes, probabilities, last = _walk(
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
    return Walk(np.asarray(codes), np.asarray(probabilities), classes[::every], last, len(classes))


def update(
    model: PlugAndPlay, rule: Rule, code: Array, label: Array, step: Scalar, noise: Array
) -> tuple[Array, Array]:
    """One step of one chain: (the next code, p(label | image) where it began).

    Args:
      model: see `walk`.
      rule: likewise.
      code: h.
      label: the class.
      step: a_i.
      noise: n, a draw of N(0, I) of the code's shape.
    """
    made, to_code = jax.vjp(model.generator, code)
    image = _clamp(model, made)
    logits, to_image = jax.vjp(model.classifier, image)
    probability = jax.nn.softmax(logits)[label]
    (g,) = to_image(class_gradient(logits, label, rule.gradient))
    if model.mask is not None and model.real is not None:
        g = model.mask * g
    if rule.compat == "dgnam":
        (d,) = to_code(_unit(g) * step)
        return _taken(rule, code, step * _unit(d)), probability
    pull = rule.epsilon2 * g
    if model.mask is not None and model.real is not None:
        pull = pull + rule.epsilon4 * (1.0 - model.mask) * (model.real - made)
    (d,) = to_code(pull)
    if model.prior is not None:
        d = d + rule.epsilon1 * (model.prior(code, image) - code)
    if rule.compat == "ppgn":
        return _taken(rule, code, step * _unit(d + rule.epsilon3 * noise)), probability
    return _taken(rule, code, step * d + rule.epsilon3 * noise), probability


def class_gradient(logits: Array, label: Array, kind: ClassGradient) -> Array:
    """Return the gradient with respect to the logits of what a class is climbed by (Table S2).

    With s = softmax(logits), c the label and e_c its unit vector: "logit" e_c, "softmax"
    s_c (e_c - s), "log_softmax" e_c - s, "ppgn" (1 - s_c) e_c.
    """
    s, e = jax.nn.softmax(logits), jax.nn.one_hot(label, logits.shape[0], dtype=logits.dtype)
    return {
        "logit": e,
        "softmax": s[label] * (e - s),
        "log_softmax": e - s,
        "ppgn": (1.0 - s[label]) * e,
    }[kind]


@functools.partial(
    jax.jit, static_argnames=("num_steps", "num_chains", "every", "reset_every", "tile")
)
def _walk(
    key: PRNGKey,
    model: PlugAndPlay,
    rule: Rule,
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
        def body(carry: tuple[Array, Array], i: Array) -> Any:
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

        def group(carry: Any, first: Array) -> Any:
            """Return the first of `every` steps is kept: memory is that of the kept codes."""
            carry, kept = jax.lax.scan(body, carry, first + jnp.arange(every))
            return carry, jax.tree.map(lambda x: x[0], kept)

        whole, rest = divmod(classes.shape[0], every)
        carry, kept = jax.lax.scan(group, begin, every * jnp.arange(whole))
        if rest:
            carry, more = jax.lax.scan(body, carry, every * whole + jnp.arange(rest))
            kept = jax.tree.map(lambda a, b: jnp.concatenate([a, b[:1]]), kept, more)
        return *kept, carry[0]

    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_chains))
    if start is None:
        return over_chains(lambda k: one(k, None), (keys,), tile)
    return over_chains(one, (keys, start), tile)


def _clamp(model: PlugAndPlay, image: Array) -> Array:
    """x <- M x + (1 - M) x_real (Eq. 25)."""
    if model.mask is None or model.real is None:
        return image
    return model.mask * image + (1.0 - model.mask) * model.real


def _unit(d: Array) -> Array:
    """d over its mean magnitude; zero where it has no direction."""
    scale = jnp.mean(jnp.abs(d))
    return jnp.where(scale > 0, d / jnp.where(scale > 0, scale, 1.0), 0.0)


def _taken(rule: Rule, code: Array, move: Array) -> Array:
    """Return the code after a move, clipped and decayed; as it was if the move is not finite."""
    new = jnp.clip(code + move, rule.low, rule.high) * rule.decay
    return jnp.where(jnp.all(jnp.isfinite(new)), new, code)
