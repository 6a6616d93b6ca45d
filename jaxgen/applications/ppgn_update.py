"""One update of a code: Eq. 5 of Plug & Play Generative Networks, and those of two programs."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.applications.plug_and_play import PlugAndPlay, clamp
from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree, static
from jaxgen.core.types import Array, Scalar

__all__ = ["ClassGradient", "PPGNUpdate", "class_gradient", "update"]

ClassGradient = Literal["logit", "softmax", "log_softmax", "ppgn"]
_GRADIENTS = ("logit", "softmax", "log_softmax", "ppgn")


@pytree
class PPGNUpdate:
    """The update of a code; every number is data.

    With d = e1 (R(h) - h) + e2 J^T g + e4 J^T c, g the class gradient in image space,
    c = (1 - M) (x_real - x) the pull of the context, n ~ N(0, I), and the step a_i going
    linearly from `first_step` to `last_step` over the steps of a class:

    - compat None:    h' = clip(h + a d + e3 n) decay
    - compat "ppgn":  d <- d + e3 n;  h' = clip(h + a d / mean|d|) decay
    - compat "dgnam": g <- g / mean|g|;  d = J^T (a g);  h' = clip(h + a d / mean|d|) decay

    A step that is not finite, or has no direction, is not taken.

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
    low: Array | float = -np.inf
    high: Array | float = np.inf
    gradient: ClassGradient = static(default="log_softmax")
    compat: Literal["ppgn", "dgnam"] | None = static(default=None)

    @classmethod
    def ppgn(cls, epsilon1: float = 1e-5, epsilon3: float = 1e-17, **more: object) -> PPGNUpdate:
        """Return the program of PPGN: the step over mean |d|, codes in [0, 30] (fc6 after ReLU)."""
        given = {"low": 0.0, "high": 30.0, "gradient": "ppgn", "compat": "ppgn", **more}
        return cls(epsilon1=epsilon1, epsilon3=epsilon3, **given)

    @classmethod
    def dgnam(
        cls, first_step: float = 8.0, high: Array | float = np.inf, **more: object
    ) -> PPGNUpdate:
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
        """Raise `InputError` for invalid settings."""
        for name in ("epsilon1", "epsilon2", "epsilon3", "epsilon4", "first_step", "decay"):
            value = np.asarray(getattr(self, name))
            if value.ndim or not np.isfinite(value) or value < 0:
                raise expected(f"PPGNUpdate.{name}", "a finite number of at least 0", value)
        if not np.all(np.asarray(self.low) < np.asarray(self.high)):
            raise expected("PPGNUpdate", "low < high", f"[{self.low}, {self.high}]")
        if self.gradient not in _GRADIENTS:
            raise expected("PPGNUpdate.gradient", f"one of {', '.join(_GRADIENTS)}", self.gradient)
        if self.compat not in (None, "ppgn", "dgnam"):
            raise expected("PPGNUpdate.compat", 'None, "ppgn" or "dgnam"', self.compat)


def update(
    model: PlugAndPlay, rule: PPGNUpdate, code: Array, label: Array, step: Scalar, noise: Array
) -> tuple[Array, Array]:
    """Move one chain one step.

    Args:
      model: see `run_chains`.
      rule: likewise.
      code: h.
      label: the class.
      step: a_i.
      noise: n, a draw of N(0, I) of the code's shape.

    Returns:
      The next code, and p(label | image) at the code before the step.
    """
    made, to_code = jax.vjp(model.generator, code)
    image = clamp(model, made)
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
    """Return the gradient, with respect to the logits, of the score of a class (Table S2).

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


def _unit(d: Array) -> Array:
    """Return d over its mean magnitude; zero where it has no direction."""
    scale = jnp.mean(jnp.abs(d))
    return jnp.where(scale > 0, d / jnp.where(scale > 0, scale, 1.0), 0.0)


def _taken(rule: PPGNUpdate, code: Array, move: Array) -> Array:
    """Return the code after a move, clipped and decayed; as it was if the move is not finite."""
    new = jnp.clip(code + move, rule.low, rule.high) * rule.decay
    return jnp.where(jnp.all(jnp.isfinite(new)), new, code)
