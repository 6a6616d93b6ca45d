"""Former names, keywords and the former signature of a kernel's step: accepted, with a warning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import InputError, kernels
from jaxgen.applications import baselines, tasks
from jaxgen.cli.progress import Reporter
from jaxgen.core.deprecation import former_keyword
from jaxgen.inference.batched import anneal
from jaxgen.inference.bdmc import reverse_ais
from jaxgen.models.text import language_models
from jaxgen.sampler.results import SampleResult
from jaxgen.sequences import infilling
from jaxgen.target.conditions import regularizers
from tests.toys import LinearGaussian


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (kernels, "Tuning", "KernelParams"),
        (jaxgen.ppgn, "Rule", "PPGNUpdate"),
        (jaxgen.ppgn, "Walk", "PPGNResult"),
        (jaxgen.ppgn, "walk", "run_chains"),
        (regularizers, "GaussianBlur", "BlurPenalty"),
        (infilling, "Redraw", "BlockMH"),
        (language_models, "Writer", "LanguageModel"),
        (language_models, "Reader", "TextCNN"),
    ],
)
def test_a_former_name_is_the_present_one_and_says_so(module, old, new):
    with pytest.warns(DeprecationWarning, match=rf"{old} is deprecated: use .*{new}"):
        assert getattr(module, old) is getattr(module, new)
    assert old not in module.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nobody'"):
        _ = kernels.nobody


def test_a_former_field_reads_the_present_one():
    blank = dict.fromkeys(SampleResult._fields[: -len(SampleResult._field_defaults)])
    result = SampleResult(**{**blank, "num_lineages": 7, "notes": ()})
    with pytest.warns(DeprecationWarning, match=r"SampleResult\.num_ancestors is deprecated"):
        assert result.num_ancestors == 7


def test_a_kernel_with_the_former_step_moves_as_its_present_form():
    class Present(kernels.RandomWalk):
        def step(self, key, state, context):
            new = self.init(context.path, state.position + context.params.step_size)
            ratio = context.beta * (new.tilt - state.tilt) + new.base - state.base
            return kernels.gaussian.accept_or_reject(key, new, state, ratio)

    with pytest.warns(DeprecationWarning, match=r"Former\.step\(key, state, path, beta"):

        class Former(kernels.RandomWalk):
            def step(self, key, state, path, beta, tuning, t):
                new = self.init(path, state.position + tuning.step_size)
                ratio = beta * (new.tilt - state.tilt) + new.base - state.base
                return kernels.gaussian.accept_or_reject(key, new, state, ratio)

    path = jaxgen.likelihood_path(LinearGaussian(3).posterior)
    params = kernels.KernelParams(jnp.float32(0.1), jnp.ones(3))
    context = kernels.StepContext(path, jnp.float32(0.5), params, jnp.int32(1))
    state = Present().init(path, jnp.ones(3))
    key = jax.random.key(0)
    for ours, theirs in zip(
        jax.tree.leaves(Former().step(key, state, context)),
        jax.tree.leaves(Present().step(key, state, context)),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


RENAMED = [
    jaxgen.sample,
    jaxgen.sample_each,
    jaxgen.ais,
    jaxgen.annealed,
    jaxgen.bdmc,
    jaxgen.loglik,
    anneal,
    baselines.tempered,
    infilling.infill,
    reverse_ais,
    tasks.inpaint,
    tasks.reconstruct,
    tasks.super_resolve,
]


@pytest.mark.parametrize("function", RENAMED, ids=lambda function: function.__name__)
def test_moves_is_the_former_name_of_num_mcmc_steps(function):
    """The warning names the caller's line, and the call then goes on as if newly written."""
    name = function.__name__
    said = rf"{name}\(moves=\.\.\.\) is deprecated: use {name}\(num_mcmc_steps=\.\.\.\)"
    # Without its first arguments the call ends at once.
    with pytest.warns(DeprecationWarning, match=said) as found, pytest.raises(TypeError):
        function(moves=2)
    assert {warning.filename for warning in found} == {__file__}
    with pytest.raises(
        InputError, match="num_mcmc_steps: expected num_mcmc_steps alone; got moves"
    ):
        function(moves=2, num_mcmc_steps=2)


def test_the_former_keyword_gives_the_same_bits():
    posterior = LinearGaussian(3).posterior
    settings = {"num_chains": 8, "betas": [0.0, 0.5, 1.0], "step_size": 0.1}
    with pytest.warns(DeprecationWarning, match=r"ais\(moves=\.\.\.\) is deprecated"):
        was = jaxgen.ais(jax.random.key(0), posterior, moves=3, **settings)
    now = jaxgen.ais(jax.random.key(0), posterior, num_mcmc_steps=3, **settings)
    np.testing.assert_array_equal(was.position, now.position)
    assert was.log_z == now.log_z
    other = jaxgen.ais(jax.random.key(0), posterior, num_mcmc_steps=1, **settings)
    assert not np.array_equal(other.position, now.position)


def test_a_task_takes_the_former_keyword_in_place_of_its_own_default():
    image, prior = jnp.full((2, 2, 1), 0.5), jaxgen.Gaussian.standard(4)
    given = (lambda z: jax.nn.sigmoid(z.reshape(2, 2, 1)), image, jnp.ones((2, 2)))
    settings = {"prior": prior, "num_chains": 8, "num_steps": 4, "warmup": 1}
    now = tasks.inpaint(jax.random.key(0), *given, num_mcmc_steps=2, **settings)
    with pytest.warns(DeprecationWarning, match=r"inpaint\(moves=\.\.\.\) is deprecated"):
        was = tasks.inpaint(jax.random.key(0), *given, moves=2, **settings)
    np.testing.assert_array_equal(was.mean, now.mean)


def test_a_method_is_named_by_its_class():
    with pytest.warns(DeprecationWarning, match=r"^Reporter\(moves=\.\.\.\) is deprecated"):
        Reporter(1, quiet=True, moves=3)


def test_a_function_that_accepts_a_former_keyword_stays_what_it_was():
    @former_keyword("old", "new")
    def double(*, new: int) -> int:
        """Double it."""
        return 2 * new

    assert (double.__name__, double.__doc__, double(new=3)) == ("double", "Double it.", 6)
    with pytest.raises(TypeError, match="other"):
        double(other=3)
