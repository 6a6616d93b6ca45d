"""Keys in every form that people have them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.core.errors import InputError
from jaxgen.core.keys import as_key


@pytest.mark.parametrize(
    "key", [7, np.int64(7), np.asarray(7), jax.random.key(7), jax.random.PRNGKey(7)]
)
def test_all_forms_are_one_key(key):
    typed = as_key(key)
    assert jnp.issubdtype(typed.dtype, jax.dtypes.prng_key)
    np.testing.assert_array_equal(
        jax.random.key_data(typed), jax.random.key_data(jax.random.key(7))
    )
    assert as_key(typed) is typed


def test_keys_pass_under_jit():
    draw = jax.jit(lambda key: jax.random.normal(as_key(key)))
    assert draw(jax.random.PRNGKey(7)) == draw(jax.random.key(7))


@pytest.mark.parametrize(
    "key",
    [
        0.5,
        None,
        True,
        "0",
        jnp.zeros(2),
        jnp.zeros(3, jnp.uint32),
        2**70,
        jax.random.split(jax.random.key(0)),
    ],
)
def test_others_are_refused_by_name(key):
    with pytest.raises(InputError, match=r"^seed: expected an integer") as caught:
        as_key(key, "seed")
    assert "\n" not in str(caught.value)
