"""What people get wrong: one line for each, that names the argument which is wrong."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.core.errors import InputError
from jaxgen.core.keys import as_key
from jaxgen.target.conditions import operators

SHAPE = (8, 8, 1)
WEIGHTS = jax.random.normal(jax.random.key(1), (4, 64), jnp.float32)
PRIOR = jaxgen.Gaussian.standard(4)
MASK = jnp.ones(SHAPE[:2])
PIXELS = jnp.full(SHAPE, 0.4, jnp.float32)
SEEN = jaxgen.ObservedPixels(PIXELS, MASK, 0.1)


def plain(z):
    return jax.nn.sigmoid(z @ WEIGHTS).reshape(SHAPE)


def logits(image):
    return 3 * jnp.stack([image.mean(), image[0, 0, 0], -image[1, 1, 0]])


def softmax(image):
    return jax.nn.softmax(logits(image))


def of(generator=plain, condition=SEEN, prior=PRIOR):
    return lambda: jaxgen.Posterior(prior, generator, condition).check()


def numpy_generator(z):
    return np.tanh(np.asarray(z) @ np.asarray(WEIGHTS)).reshape(SHAPE)


def branching(z):
    return plain(z) if z[0] > 0 else plain(-z)


def torch_generator(z):
    torch = pytest.importorskip("torch")
    return torch.nn.functional.relu(z)


def torch_module():
    torch = pytest.importorskip("torch")
    of(generator=torch.nn.Linear(4, 64))()


def unbound_linen():
    from flax import linen as nn

    of(generator=nn.Dense(64))()


def batch_style(z):
    return jax.nn.sigmoid(z @ WEIGHTS).reshape(z.shape[0], *SHAPE)


def two_arguments(z, label):
    return plain(z) * label


def random_numbers(z):
    return plain(z) + 0.01 * np.random.default_rng().normal(size=SHAPE).astype(np.float32)


COUNT = itertools.count()


def global_state(z):
    return plain(z) * (1 + next(COUNT))


def called_back(z):
    out = jax.ShapeDtypeStruct(SHAPE, np.float32)
    rng = np.random.default_rng()
    return plain(z) + jax.pure_callback(lambda: rng.normal(size=SHAPE).astype(np.float32), out)


def random_condition(image):
    return -((image.mean() - np.random.default_rng().uniform()) ** 2)


class NoPytree:
    def __init__(self):
        self.scale = 2.0

    def sample(self, key):
        return jax.random.normal(key, (4,), jnp.float32)

    def log_prob(self, z):
        return -0.5 * jnp.sum(z**2)

    def latent(self, z):
        return z


def discrete():
    dist = pytest.importorskip("numpyro.distributions")
    of(prior=dist.Poisson(2.0 * jnp.ones(4)))()


def joint_with_batch():
    tfd = pytest.importorskip("tensorflow_probability.substrates.jax.distributions")
    of(prior=tfd.JointDistributionNamed({"a": tfd.Normal(jnp.zeros(2), 1.0)}))()


def seen(observed=PIXELS, mask=MASK, noise=0.1):
    return of(condition=jaxgen.ObservedPixels(observed, mask, noise))


def classed(make, classifier=logits, label=1, **more):
    return of(condition=make(classifier, label, **more))


SHIPPED = "fashion-mnist/cnn"
CASES = {
    # The generator is wrong.
    "batch of latents": (of(batch_style), r"generator: .*batch.*generator\(z\[None\]\)\[0\]"),
    "batch axis": (
        of(lambda z: plain(z)[None]),
        r"generator: expected one image .*\[1, 8, 8, 1\].*batch axis",
    ),
    "channels first": (
        of(lambda z: jnp.moveaxis(plain(z), -1, 0)),
        r"generator: .*\[1, 8, 8\], channels first.*moveaxis",
    ),
    "two arguments": (
        of(two_arguments),
        r"generator: expected a function of one latent; .*2 arguments \(z, label\).*Labelled",
    ),
    "no argument": (of(lambda: PIXELS), "generator: .*needs|generator: expected"),
    "a tuple": (of(lambda z: (plain(z), z)), r"generator: .*tuple of 2.*generator\(z\)\[0\]"),
    "a dict": (of(lambda z: {"image": plain(z)}), r"generator: .*generator\(z\)\['image'\]"),
    "8-bit output": (
        of(lambda z: (255 * plain(z)).astype(jnp.uint8)),
        "generator: .*uint8. Divide 8-bit images by 255",
    ),
    "256 levels": (of(lambda z: 255 * plain(z)), "generator: .*Divide its images by 255"),
    "tanh": (of(lambda z: 2 * plain(z) - 1), r"generator: .*\[-.*Use \(x \+ 1\) / 2"),
    "complex output": (of(lambda z: plain(z) * 1j), "generator: .*complex64"),
    "NumPy": (of(numpy_generator), "generator: .*NumPy values. Write it with jax.numpy"),
    "an if": (of(branching), "generator: .*JAX can trace.*jnp.where"),
    "torch function": (of(torch_generator), "generator: .*torch.*weights_convert"),
    "torch module": (torch_module, "generator: .*Linear, a torch module.*torchax_wrap"),
    "linen unbound": (unbound_linen, r"generator: .*module.bind\(variables\)"),
    "host random numbers": (of(random_numbers), "generator: expected the same value"),
    "a global": (of(global_state), "generator: expected the same value"),
    "a callback": (of(called_back), "generator: expected the same value"),
    "NaN images": (of(lambda z: plain(z) * jnp.nan), "generator: expected finite pixels; got NaN"),
    "constant": (of(lambda z: PIXELS + 0 * z[0]), "generator: .*same image.*BatchNorm"),
    "not callable": (of(3.0), "generator: expected a function of a latent; got float"),
    "no such name": (of("fashion-mnist/dcgam"), "generator: .*Did you mean 'fashion-mnist/dcgan'"),
    "label out of range": (
        of(jaxgen.Labelled(two_arguments, 7, classes=5)),
        "Labelled.label: expected an integer from 0 to 4; got 7",
    ),
    # The prior is wrong.
    "latent size": (of(prior=jaxgen.Gaussian.standard(3)), r"prior: .*\[\[3\]\]"),
    "shipped latent size": (
        of("fashion-mnist/dcgan"),
        r"prior: expected latents of shape \[64\] for the generator; got shape \[4\]",
    ),
    "no prior": (of(prior=None), "prior: .*NoneType without sample.*Gaussian.standard"),
    "a class": (of(prior=jaxgen.Gaussian), "prior: .*the class Gaussian itself"),
    "a plain object": (of(prior=NoPytree()), "prior: .*pytree; got NoPytree"),
    "discrete prior": (discrete, "prior: .*Poisson, which is discrete"),
    "a joint batch": (joint_with_batch, "prior: .*batch.*tfd.Independent"),
    "bfloat16 prior": (
        of(prior=jaxgen.Gaussian.standard(4, jnp.bfloat16)),
        "Gaussian.mean: .*float32 or float64; got bfloat16",
    ),
    "list prior": (of(prior=jaxgen.Gaussian([0.0], [1.0, 2.0])), "Gaussian.scale: .*structure"),
    "negative scale": (
        of(prior=jaxgen.Gaussian(jnp.zeros(4), -jnp.ones(4))),
        "Gaussian.scale: expected positive",
    ),
    # The condition is wrong.
    "8-bit observation": (seen(255 * PIXELS), "observed: .*Divide 8-bit images by 255"),
    "observation in [-1, 1]": (
        seen(jnp.linspace(-1, 1, 64).reshape(SHAPE)),
        r"observed: .*\[-1, 1\]. Use \(y \+ 1\) / 2",
    ),
    "the same, wide noise": (
        seen(jnp.linspace(-1, 1, 64).reshape(SHAPE), noise=0.2),
        r"observed: .*like the generator; got \[-1, 1\]. Use \(y \+ 1\) / 2",
    ),
    "observation in a batch": (seen(PIXELS[None]), r"observed: .*Take one image: y\[0\]"),
    "no channel": (seen(PIXELS[..., 0]), r"observed: .*Add the channel: y\[..., None\]"),
    "complex pixels": (seen(PIXELS * 1j), "observed: expected real pixels"),
    "mask of another size": (seen(mask=jnp.ones((4, 4))), r"mask: expected shape \(8, 8\)"),
    "noise of another size": (seen(noise=jnp.ones(8)), "noise: expected one number"),
    "noise as text": (seen(noise="learn"), "noise: expected a positive number; got 'learn'"),
    "bool condition": (
        of(condition=lambda x: x.mean() > 0.5),
        r"Function: .*bool. For a constraint, give jnp.where\(holds, 0.0, -jnp.inf\)",
    ),
    "int condition": (
        of(condition=SEEN + (lambda x: jnp.sum(x > 0.5))),
        "Function: expected a floating log likelihood; got int32",
    ),
    "complex condition": (
        of(condition=lambda x: jnp.sum(jnp.fft.fft(x))),
        r"Function: .*complex64. Take \|r\|\^2",
    ),
    "vector condition": (of(condition=lambda x: -((x - 0.5) ** 2)), "Function: .*Sum over pixels"),
    "NaN everywhere": (of(condition=lambda x: x.sum() * jnp.nan), "condition: .*NaN at 256 of 256"),
    "-inf everywhere": (
        of(condition=lambda x: jnp.where(x[0, 0, 0] > 2, 0.0, -jnp.inf)),
        "condition: .*-inf at 256 of 256",
    ),
    "+inf": (of(condition=lambda x: 1 / (0 * x.sum())), r"condition: .*\+inf at 4 of 4"),
    "random condition": (of(condition=random_condition), "condition: expected the same value"),
    "a list": (of(condition=[SEEN, SEEN]), r"condition: .*sum\(\[a, b\]\)"),
    "a class of conditions": (
        of(condition=jaxgen.ObservedPixels),
        "condition: .*the class ObservedPixels itself",
    ),
    "probabilities": (
        classed(jaxgen.ClassLogSoftmax, softmax),
        r'classifier: expected logits; got probabilities .*takes="probabilities"',
    ),
    "probability of them": (classed(jaxgen.ClassProbability, softmax), "classifier: .*takes="),
    "logit of them": (classed(jaxgen.ClassLogit, softmax), "classifier: .*ClassLogSoftmax"),
    "logits said to be them": (
        classed(jaxgen.ClassLogSoftmax, takes="probabilities"),
        "ClassLogSoftmax.takes: expected 'logits'",
    ),
    "takes": (classed(jaxgen.ClassLogSoftmax, takes="p"), "ClassLogSoftmax.takes: .*; got 'p'"),
    "label": (classed(jaxgen.ClassLogSoftmax, label=3), "label: .*from 0 to 2; got 3"),
    "label without names": (
        classed(jaxgen.ClassLogSoftmax, label="shoe"),
        "label: .*'shoe', and the classifier's classes have no names",
    ),
    "unknown label": (
        lambda: jaxgen.ClassLogSoftmax(SHIPPED, "sneeker"),
        "label: .*Did you mean 'sneaker'",
    ),
    "unknown classifier": (
        lambda: jaxgen.ClassLogSoftmax("fashion-mnist/cmn", 1),
        "classifier: .*Did you mean 'fashion-mnist/cnn'",
    ),
    "classifier in batches": (
        classed(jaxgen.ClassLogSoftmax, lambda x: logits(x)[None]),
        r"classifier: .*classifier\(x\[None\]\)\[0\]",
    ),
    "real observation": (
        of(condition=jaxgen.Operator(PIXELS[..., 0], 0.1, lambda x: jnp.fft.fft2(x[..., 0]))),
        "Operator.observed: expected complex64 numbers",
    ),
    "operator that fails": (
        of(condition=jaxgen.Operator(PIXELS, 0.1, lambda x: x @ jnp.ones((3, 3)))),
        "Operator.forward: expected a function of an image",
    ),
    "counts": (
        of(condition=jaxgen.PoissonCounts(PIXELS, 30.0)),
        "PoissonCounts.observed: expected whole numbers",
    ),
    "not linear": (
        lambda: operators.Matrix.of(lambda x: x**2, SHAPE),
        "Matrix.of: expected a linear function",
    ),
    "Bernoulli of logits": (
        of(lambda z: (z @ WEIGHTS).reshape(SHAPE), jaxgen.BernoulliPixels(PIXELS, MASK)),
        "generator: expected probabilities .*jax.nn.sigmoid",
    ),
    # Other arguments.
    "a float key": (lambda: as_key(0.5), "key: expected an integer or one key.*; got float"),
    "many keys": (lambda: as_key(jax.random.split(jax.random.key(0))), r"key: .*key\[0\]"),
    "torch file": (
        lambda: jaxgen.load("generator.pth"),
        "name: .*weights_convert torch generator.pth --recipe NAME",
    ),
    "Keras file": (lambda: jaxgen.load("model.keras"), "name: .*a Keras file"),
    "freeze a function": (lambda: jaxgen.freeze(plain), "module: expected an nnx.Module"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", CASES)
def test_one_line_names_the_argument(name):
    build, words = CASES[name]
    with pytest.raises(InputError, match=words) as caught:
        build()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_there_are_forty():
    assert len(CASES) >= 40


def test_a_rare_event_is_a_proper_condition():
    """Two prior draws in a hundred have a likelihood: no mistake."""
    rare = jaxgen.Posterior(
        PRIOR, plain, lambda x: jnp.where(jnp.log(x / (1 - x))[0, 0, 0] > 2.5, 0.0, -jnp.inf)
    )
    share = float(jax.scipy.stats.norm.sf(2.5 / jnp.linalg.norm(WEIGHTS[:, 0])))
    assert 0.01 < share < 0.2
    rare.check()


def test_a_posterior_is_probed_once_and_not_under_jit(monkeypatch):
    from jaxgen.target import probe

    runs = []
    evaluate = probe._evaluate
    monkeypatch.setattr(probe, "_evaluate", lambda *a: runs.append(1) or evaluate(*a))
    posterior = jaxgen.Posterior(PRIOR, plain, SEEN)
    posterior.check()
    posterior.check()
    assert len(runs) == 1

    @jax.jit
    def traced(posterior):
        posterior.check()
        return posterior(jnp.zeros(4))

    assert np.isfinite(traced(jaxgen.Posterior(PRIOR, lambda z: plain(z), lambda x: x.sum())))
    assert len(runs) == 1
