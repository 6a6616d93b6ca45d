# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Evidence that can be checked
#
# For a linear generator and Gaussian noise, log Z is known: log N(y; 0, A A^T + s^2 I).

# %%
import jax
import jax.numpy as jnp
import numpy as np

import jaxgen

matrix = jnp.eye(4) + 0.4 * jnp.eye(4, k=1)
seen = jnp.array([0.9, -0.4, 0.2, -1.1])
noise = 0.5


def generator(z):
    return (matrix @ z)[:, None, None]


posterior = jaxgen.Posterior(
    jaxgen.Gaussian.standard(4),
    generator,
    jaxgen.Operator(seen, noise, lambda image: image[:, 0, 0]),
)
result = jaxgen.sample(jax.random.key(0), posterior, num_chains=256)

# %%
spread = np.asarray(matrix @ matrix.T) + noise**2 * np.eye(4)
exact = -0.5 * (
    np.asarray(seen) @ np.linalg.solve(spread, np.asarray(seen))
    + np.linalg.slogdet(spread)[1]
    + 4 * np.log(2 * np.pi)
)
errors = abs(result.log_z - exact) / result.log_z_standard_error
print(f"log Z {result.log_z:.3f} ± {result.log_z_standard_error:.3f}, exact {exact:.3f}")
assert errors < 5
