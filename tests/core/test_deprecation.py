"""Former names and the former signature of a kernel's step: accepted, with a warning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import kernels
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
