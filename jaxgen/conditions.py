"""What was observed, as log likelihoods of ONE image.

A condition is called with the generator's image and returns a scalar. `a + b` observes
both, `2.0 * a` weighs one, and any function of an image can join: `a + (lambda x: ...)`.
A condition is *tempered* unless it says otherwise: annealing raises the tempered ones
from 0 to full strength and keeps the others at full strength throughout
(`condition.untempered()`).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.errors import expected
from jaxgen.pytree import pytree, static
from jaxgen.types import Array, Scalar

__all__ = [
    "BernoulliPixels",
    "ClassLogSoftmax",
    "ClassLogit",
    "ClassProbability",
    "Condition",
    "Function",
    "HiddenUnit",
    "LowResolution",
    "ObservedPixels",
    "Operator",
    "Sum",
    "Untempered",
    "Weighted",
    "as_condition",
    "average_pool",
    "split_tempered",
    "stride_subsample",
]


class Condition:
    """Base of all conditions: the algebra, and a check before anything is traced."""

    def __call__(self, image: Array) -> Array:
        """The log likelihood (or any log weight) of an image: a scalar."""
        raise NotImplementedError

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise `InputError` where the condition cannot apply to images of this shape."""

    def __add__(self, other: Any) -> Sum:
        return Sum((*_terms(self), *_terms(as_condition(other))))

    def __radd__(self, other: Any) -> Sum:
        return as_condition(other) + self

    def __mul__(self, weight: Scalar) -> Weighted:
        return Weighted(self, jnp.asarray(weight, jnp.float32))

    __rmul__ = __mul__

    def untempered(self) -> Untempered:
        """The same condition, held at full strength at every temperature."""
        return Untempered(self)


@pytree
class Sum(Condition):
    """The sum of conditions: all of them were observed, independently given the image."""

    terms: tuple[Any, ...]

    def __call__(self, image: Array) -> Array:
        """sum_k term_k(image)."""
        return sum((term(image) for term in self.terms), jnp.zeros(()))

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check every term."""
        for term in self.terms:
            term.check(image_shape)


@pytree
class Weighted(Condition):
    """weight * condition."""

    condition: Any
    weight: Scalar

    def __call__(self, image: Array) -> Array:
        """weight * condition(image)."""
        return self.weight * self.condition(image)

    def check(self, image_shape: tuple[int, ...]) -> None:
        """The weight must be finite."""
        if not np.all(np.isfinite(self.weight)):
            raise expected("weight", "a finite number", self.weight)
        self.condition.check(image_shape)


@pytree
class Untempered(Condition):
    """A condition at full strength at every temperature."""

    condition: Any

    def __call__(self, image: Array) -> Array:
        """condition(image)."""
        return self.condition(image)

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check the condition inside."""
        self.condition.check(image_shape)


@pytree
class Function(Condition):
    """Any pure function of an image that returns a scalar log weight.

    Attributes:
      function: `function(image, *arguments)`, or `function(image)`. A pytree callable
        (such as a regulariser) may be given instead: its arrays are then data.
      arguments: arrays the function needs; changing them compiles nothing.
    """

    function: Any = static()
    arguments: tuple[Any, ...] = ()

    def __call__(self, image: Array) -> Array:
        """function(image, *arguments)."""
        return jnp.asarray(self.function(image, *self.arguments))

    def check(self, image_shape: tuple[int, ...]) -> None:
        """The function must return a scalar."""
        _check_scalar("Function", self, image_shape)


@pytree
class Term(Condition):
    """A callable pytree (a regulariser, say) as a condition."""

    term: Any

    def __call__(self, image: Array) -> Array:
        """term(image)."""
        return jnp.asarray(self.term(image))

    def check(self, image_shape: tuple[int, ...]) -> None:
        """The term must return a scalar."""
        _check_scalar(type(self.term).__name__, self.term, image_shape)


@pytree
class ClassLogSoftmax(Condition):
    """The class under a classifier: log p(c | x) = logit_c - logsumexp_j logit_j.

    The default class condition, and the only one of the three that is the log of a
    probability (PPGN, Table S2c).

    Attributes:
      classifier: image -> logits `[K]`.
      label: class index, an integer or an integer array `[]`.
    """

    classifier: Any
    label: Array | int

    def __call__(self, image: Array) -> Array:
        """log p(label | image)."""
        return jax.nn.log_softmax(self.classifier(image))[self.label]

    def check(self, image_shape: tuple[int, ...]) -> None:
        """The label must be one of the classifier's classes."""
        _check_label(self, image_shape)


@pytree
class ClassLogit(Condition):
    """The class's logit, unnormalised: DGN-AM's objective (PPGN, Table S2a).

    It grows without bound, so with it the "posterior" exists only as far as the prior
    holds it back.
    """

    classifier: Any
    label: Array | int

    def __call__(self, image: Array) -> Array:
        """logit_label(image)."""
        return self.classifier(image)[self.label]

    def check(self, image_shape: tuple[int, ...]) -> None:
        """The label must be one of the classifier's classes."""
        _check_label(self, image_shape)


@pytree
class ClassProbability(Condition):
    """The class's probability itself, p(c | x) (PPGN, Table S2b).

    Bounded by 1, it barely tilts the prior: weigh it (`20 * ClassProbability(...)`).
    """

    classifier: Any
    label: Array | int

    def __call__(self, image: Array) -> Array:
        """p(label | image)."""
        return jax.nn.softmax(self.classifier(image))[self.label]

    def check(self, image_shape: tuple[int, ...]) -> None:
        """The label must be one of the classifier's classes."""
        _check_label(self, image_shape)


@pytree
class HiddenUnit(Condition):
    """A unit of a hidden layer: its activation, or its log-softmax over channels.

    Attributes:
      network: a network cut at the layer, as `classifier.at("conv2")` gives it; its
        output is `[channels]` or `[H, W, channels]`.
      channel: which channel.
      position: (row, column) of the unit, or None for the mean over all positions.
      normalise: False for the activation; True for the log-softmax over channels at the
        position (PPGN's conditioning on conv units).
    """

    network: Any
    channel: Array | int
    position: Any = None
    normalise: bool = static(default=False)

    def __call__(self, image: Array) -> Array:
        """The unit's activation, or its log probability among the channels."""
        activation = self.network(image)
        if activation.ndim > 1:
            if self.position is None:
                activation = activation.mean(axis=tuple(range(activation.ndim - 1)))
            else:
                row, column = self.position
                activation = activation[row, column]
        if self.normalise:
            activation = jax.nn.log_softmax(activation)
        return activation[self.channel]

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Channel and position must lie inside the layer."""
        shape = jax.eval_shape(self.network, jax.ShapeDtypeStruct(image_shape, jnp.float32)).shape
        _check_index("HiddenUnit.channel", self.channel, shape[-1])
        if self.position is not None:
            if len(shape) != 3:
                raise expected(
                    "HiddenUnit.position", f"None for a layer of shape {shape}", "a position"
                )
            for name, index, size in zip(("row", "column"), self.position, shape[:2], strict=True):
                _check_index(f"HiddenUnit.position {name}", index, size)


@pytree
class ObservedPixels(Condition):
    """Pixels seen through Gaussian noise: sum over observed pixels of log N(y; x, noise^2).

    Attributes:
      observed: the image y `[H, W, channels]`, in [0, 1]; hidden pixels may hold anything
        finite.
      mask: 1 (or True) where observed; `[H, W]`, `[H, W, 1]` or the image's shape.
      noise: standard deviation of the observation noise, in pixel units.
    """

    observed: Array
    mask: Array
    noise: Scalar

    def __call__(self, image: Array) -> Array:
        """The normalised Gaussian log likelihood of the observed pixels."""
        mask = _full_mask(self.mask, image.shape)
        return _gaussian_log_likelihood(self.observed - image, self.noise, mask)

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Shapes must fit the generator, pixels lie in [0, 1], the noise be positive."""
        _check_mask(self.mask, image_shape)
        mask = np.broadcast_to(
            np.asarray(_full_mask(jnp.asarray(self.mask), image_shape)), image_shape
        )
        _check_image("observed", self.observed, image_shape, mask > 0)
        _check_noise(self.noise)


@pytree
class BernoulliPixels(Condition):
    """Pixels as independent Bernoulli trials: sum of y log x + (1 - y) log(1 - x).

    For decoders trained with a Bernoulli likelihood, whose image is the mean x. Means are
    kept away from 0 and 1 by 1e-6, where float32 has no more digits to give.

    Attributes:
      observed: binary or grey pixels y in [0, 1] `[H, W, channels]`.
      mask: 1 where observed, as in `ObservedPixels`.
    """

    observed: Array
    mask: Array

    def __call__(self, image: Array) -> Array:
        """The Bernoulli log likelihood of the observed pixels."""
        mean = jnp.clip(image, 1e-6, 1 - 1e-6)
        terms = self.observed * jnp.log(mean) + (1 - self.observed) * jnp.log1p(-mean)
        mask = _full_mask(self.mask, image.shape)
        return jnp.sum(jnp.where(mask > 0, terms, 0.0))

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Shapes must fit the generator and pixels lie in [0, 1]."""
        _check_mask(self.mask, image_shape)
        mask = np.broadcast_to(
            np.asarray(_full_mask(jnp.asarray(self.mask), image_shape)), image_shape
        )
        _check_image("observed", self.observed, image_shape, mask > 0)


@pytree
class LowResolution(Condition):
    """A low-resolution view seen through Gaussian noise: log N(y; A x, noise^2 I).

    Attributes:
      observed: the view y `[H / factor, W / factor, channels]`.
      noise: standard deviation of the noise on the view.
      factor: how many pixels of the image make one of the view, in each direction.
      method: `"average"` (box average) or `"stride"` (every factor-th pixel, as the
        co-generation authors do).
    """

    observed: Array
    noise: Scalar
    factor: int = static()
    method: str = static(default="average")

    def view(self, image: Array) -> Array:
        """A x: the low-resolution view of an image."""
        down = average_pool if self.method == "average" else stride_subsample
        return down(image, self.factor)

    def __call__(self, image: Array) -> Array:
        """The normalised Gaussian log likelihood of the view."""
        return _gaussian_log_likelihood(self.observed - self.view(image), self.noise)

    def check(self, image_shape: tuple[int, ...]) -> None:
        """The factor must divide the image and the view have the size that follows."""
        if self.method not in ("average", "stride"):
            raise expected("LowResolution.method", "'average' or 'stride'", repr(self.method))
        height, width, *rest = image_shape
        if self.factor < 1 or height % self.factor or width % self.factor:
            raise expected(
                "LowResolution.factor", f"a divisor of {height} and {width}", self.factor
            )
        shape = (height // self.factor, width // self.factor, *rest)
        _check_image("observed", self.observed, shape)
        _check_noise(self.noise)


@pytree
class Operator(Condition):
    """Any forward operator seen through Gaussian noise: log N(y; A(x), noise^2 I).

    Attributes:
      observed: y, of the shape of A(x).
      noise: standard deviation, a scalar or of the shape of y.
      forward: A, a function of the image (and of `arguments`).
      arguments: arrays that A needs; changing them compiles nothing.
    """

    observed: Array
    noise: Array | float
    forward: Any = static()
    arguments: tuple[Any, ...] = ()

    def __call__(self, image: Array) -> Array:
        """The normalised Gaussian log likelihood of y."""
        residual = self.observed - self.forward(image, *self.arguments)
        return _gaussian_log_likelihood(residual, self.noise)

    def check(self, image_shape: tuple[int, ...]) -> None:
        """A(x) must have the shape of y."""
        image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
        out = jax.eval_shape(self.forward, image, *self.arguments)
        if np.shape(self.observed) != out.shape:
            raise expected("Operator.observed", f"shape {out.shape}", np.shape(self.observed))
        if not np.all(np.isfinite(self.observed)):
            raise expected("Operator.observed", "finite numbers", "NaN or infinity")
        _check_noise(self.noise)


def average_pool(image: Array, factor: int) -> Array:
    """Box averages of factor x factor pixels: `[H, W, c] -> [H/f, W/f, c]`."""
    height, width, channels = image.shape
    blocks = image.reshape(height // factor, factor, width // factor, factor, channels)
    return blocks.mean(axis=(1, 3))


def stride_subsample(image: Array, factor: int) -> Array:
    """Every factor-th pixel: `[H, W, c] -> [H/f, W/f, c]`."""
    return image[::factor, ::factor]


def as_condition(term: Any) -> Condition:
    """A condition as it is; a callable pytree or a plain function made into one."""
    if isinstance(term, Condition):
        return term
    if not callable(term):
        raise expected("condition", "a condition or a function of an image", type(term).__name__)
    is_pytree = jax.tree.structure(term) != jax.tree.structure(0)
    return Term(term) if is_pytree else Function(term)


def split_tempered(condition: Condition) -> tuple[Condition, Condition | None]:
    """Split into (tempered, untempered); the second is None where there is none."""
    terms = _terms(condition)
    tempered = tuple(t for t in terms if not isinstance(_unweighted(t), Untempered))
    held = tuple(t for t in terms if isinstance(_unweighted(t), Untempered))
    return Sum(tempered), Sum(held) if held else None


def _unweighted(term: Any) -> Any:
    while isinstance(term, Weighted):
        term = term.condition
    return term


def _terms(condition: Any) -> tuple[Any, ...]:
    """The summands, with weights and untempered marks distributed over inner sums."""
    if isinstance(condition, Sum):
        return tuple(inner for term in condition.terms for inner in _terms(term))
    if isinstance(condition, Weighted):
        return tuple(Weighted(t, condition.weight) for t in _terms(condition.condition))
    if isinstance(condition, Untempered):
        return tuple(
            t if isinstance(_unweighted(t), Untempered) else Untempered(t)
            for t in _terms(condition.condition)
        )
    return (condition,)


def _gaussian_log_likelihood(
    residual: Array, noise: Array | float, mask: Array | None = None
) -> Array:
    """sum of log N(residual; 0, noise^2), over the entries that a mask keeps."""
    terms = -0.5 * (residual / noise) ** 2 - jnp.log(noise) - 0.5 * math.log(2 * math.pi)
    return jnp.sum(terms if mask is None else jnp.where(mask > 0, terms, 0.0))


def _full_mask(mask: Array, image_shape: tuple[int, ...]) -> Array:
    """A mask with the image's number of axes."""
    return mask[..., None] if mask.ndim == len(image_shape) - 1 else mask


def _check_mask(mask: Any, image_shape: tuple[int, ...]) -> None:
    shapes = (image_shape, image_shape[:-1], (*image_shape[:-1], 1))
    if np.shape(mask) not in shapes:
        raise expected("mask", f"shape {image_shape[:-1]} like the image", np.shape(mask))
    values = np.asarray(mask)
    if not np.all((values == 0) | (values == 1)):
        raise expected("mask", "0 (hidden) or 1 (observed) everywhere", "other values")
    if not values.any():
        raise expected("mask", "at least one observed pixel", "none")


def _check_image(
    name: str, image: Any, shape: tuple[int, ...], where: np.ndarray | None = None
) -> None:
    if np.shape(image) != tuple(shape):
        raise expected(name, f"shape {tuple(shape)}", np.shape(image))
    values = np.asarray(image)
    # Hidden pixels take no part, but 0 * NaN in a gradient would.
    if not np.all(np.isfinite(values)):
        raise expected(
            name, "finite pixels", f"{int(np.sum(~np.isfinite(values)))} NaN or infinite"
        )
    seen = values if where is None else values[where]
    if seen.min() < -1e-3 or seen.max() > 1 + 1e-3:
        raise expected(
            name,
            "pixels in [0, 1]",
            f"[{seen.min():.4g}, {seen.max():.4g}]",
            "Divide 8-bit images by 255",
        )


def _check_noise(noise: Any) -> None:
    if not (np.all(np.isfinite(noise)) and np.all(np.asarray(noise) > 0)):
        raise expected("noise", "a positive number", noise)


def _check_index(name: str, index: Any, size: int) -> None:
    if not np.issubdtype(np.asarray(index).dtype, np.integer):
        raise expected(name, f"an integer from 0 to {size - 1}", index)
    if np.any(np.asarray(index) < 0) or np.any(np.asarray(index) >= size):
        raise expected(name, f"an integer from 0 to {size - 1}", index)


def _check_label(condition: Any, image_shape: tuple[int, ...]) -> None:
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    logits = jax.eval_shape(condition.classifier, image)
    if len(logits.shape) != 1:
        raise expected("classifier", "logits of shape [K] for one image", logits.shape)
    _check_index("label", condition.label, logits.shape[0])


def _check_scalar(name: str, function: Any, image_shape: tuple[int, ...]) -> None:
    out = jax.eval_shape(function, jax.ShapeDtypeStruct(image_shape, jnp.float32))
    if out.shape != ():
        raise expected(name, "a function that returns a scalar", f"shape {out.shape}")
