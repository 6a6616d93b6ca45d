"""`precision=`: what is compiled, what is refused, and what is said of a lower one."""

import jax
import jax.numpy as jnp
import pytest

import jaxgen
from jaxgen.core.errors import InputError
from jaxgen.core.precision import at_precision, matmul_precision
from tests.toys import LinearGaussian

FEW = {"num_chains": 16, "num_steps": 2, "warmup": 2}


def test_products_inside_are_float32_unless_asked_otherwise():
    square = jnp.eye(3)
    with matmul_precision("highest"):
        highest = jax.make_jaxpr(lambda x: x @ x)(square)
    with matmul_precision("fast"):
        fast = jax.make_jaxpr(lambda x: x @ x)(square)
    assert "HIGHEST" in str(highest)
    assert "HIGHEST" not in str(fast)


@pytest.mark.parametrize(("name", "wanted"), [("highest", True), ("fast", False)])
def test_every_product_of_a_run_is_traced_at_its_precision(name, wanted):
    seen = []

    def generator(z):
        seen.append(jax.config.jax_default_matmul_precision == "highest")
        return jnp.tanh(z)[:, None, None]

    y = jnp.zeros((3, 1, 1))
    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard(3), generator, jaxgen.ObservedPixels(y, jnp.ones((3, 1)), 0.3)
    )
    posterior.check()
    seen.clear()
    result = jaxgen.sample(0, posterior, precision=name, **FEW)
    assert result.precision == name
    assert seen[:-1]
    if wanted:
        assert all(seen)
    else:
        assert not seen[0]


@pytest.mark.slow
def test_a_lower_precision_that_changes_the_target_is_noted():
    def generator(z):
        rough = jax.config.jax_default_matmul_precision is None
        return (z + 0.05 * rough)[:, None, None]

    y = jnp.zeros((3, 1, 1))
    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard(3), generator, jaxgen.ObservedPixels(y, jnp.ones((3, 1)), 0.1)
    )
    result = jaxgen.sample(0, posterior, precision="fast", **FEW)
    assert any("precision='fast' moves the log likelihood" in note for note in result.notes)
    assert not any("precision" in n for n in jaxgen.sample(0, posterior, **FEW).notes)


def test_another_name_is_refused():
    with pytest.raises(InputError, match="precision: expected 'highest' or 'fast'"):
        jaxgen.sample(0, LinearGaussian(2, noise=0.3, seed=0).posterior, precision="bfloat16")


def test_the_signature_stays():
    @at_precision
    def double(x: int, *, precision: str = "highest") -> int:
        """Twice."""
        return 2 * x

    assert double(3, precision="fast") == 6
    assert double.__doc__ == "Twice."
