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
# # Images of a class
#
# Draws from p(z | class), with the weights that come with the package.

# %%
import jax

import jaxgen
from jaxgen.cli.progress import Reporter

generator = jaxgen.load("fashion-mnist/gan")
classifier = jaxgen.load("fashion-mnist/classifier")
posterior = jaxgen.Posterior(
    jaxgen.Gaussian.standard(64), generator, jaxgen.ClassLogSoftmax(classifier, label=8)
)

# %% [markdown]
# The progress line is written over in a notebook.

# %%
with Reporter(1, num_mcmc_steps=3, steps=30) as reporter:
    reporter.start("bags")
    result = jaxgen.sample(
        jax.random.key(0),
        posterior,
        num_chains=16,
        collect=jaxgen.images,
        progress=reporter.update,
    )
print(f"log Z {result.log_z:.2f} ± {result.log_z_standard_error:.2f}, {result.exactness}")
print(*result.notes, sep="\n")

# %%
jaxgen.plot.grid(result.draws["image"][:, -1], columns=8)

# %% [markdown]
# How annealing went: inverse temperatures, acceptance, step size, ESS of the weights.

# %%
jaxgen.plot.path(result)

# %% [markdown]
# The film strip of one chain.

# %%
jaxgen.plot.chain(result, 0)
