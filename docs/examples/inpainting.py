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
# # The rest of an image
#
# The lower half of a real test image is hidden; the generator completes it, with intervals.

# %%
import jax
import jax.numpy as jnp

import jaxgen

image = jnp.asarray(jaxgen.examples().images[33] / 255.0, jnp.float32)
mask = jnp.ones((28, 28)).at[14:].set(0)
found = jaxgen.tasks.inpaint(
    jax.random.key(0), "fashion-mnist/gan", image, mask, noise=0.1, num_chains=16
)

# %% [markdown]
# What was seen, the posterior mean, and four draws.

# %%
pictures = [image, image * mask[..., None], found.mean, *found.samples[:4]]
jaxgen.plot.grid(
    jnp.stack(pictures),
    columns=7,
    titles=["truth", "seen", "mean", "draw", "draw", "draw", "draw"],
    size=1.2,
)

# %% [markdown]
# Can the generator show what was seen at all? A misfit of about 1 says that it can.

# %%
print(f"misfit {found.misfit:.2f}, out of reach: {found.out_of_reach}")
inside = (found.low <= image) & (image <= found.high)
print(f"{float(inside[14:].mean()):.0%} of the hidden pixels lie in their 90% intervals")
