"""A generator of your own in flax: complete an image of which the left half was seen."""

import jax
from flax import nnx

import jaxgen


class Generator(nnx.Module):  # latent [16] -> image [14, 14, 1] in [0, 1]
    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(16, 64, rngs=rngs), nnx.Linear(64, 196, rngs=rngs)

    def __call__(self, z):
        return nnx.sigmoid(4 * self.out(nnx.tanh(self.hidden(z)))).reshape(14, 14, 1)


generator = jaxgen.freeze(Generator(nnx.Rngs(0)))  # load your weights into the module first
image = generator(jax.random.normal(jax.random.key(1), (16,)))
mask = jax.numpy.zeros((14, 14)).at[:, :7].set(1)  # 1 where seen
condition = jaxgen.ObservedPixels(image, mask, 0.1)
posterior = jaxgen.Posterior(jaxgen.Gaussian.standard(16), generator, condition)
result = jaxgen.sample(jax.random.key(0), posterior, collect=jaxgen.images)
jaxgen.plot.grid(result.draws["image"][:16, -1]).savefig("own_generator.png")
print(result.log_z, result.exactness, *result.notes)
