"""Ten generators by name, four draws of each: `python docs/scripts/ten_generators.py OUT.jpg`.

Five are shipped. The others are fetched first, which takes a minute:

    jaxgen fetch digiface-dcgan omniart-eyes progan-celeba128 mobilestylegan-ffhq

A network takes standard normal latents, but for `fashion-mnist/ppgn`, which takes codes of the
shipped classifier.
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxgen
from jaxgen.models.fashion_mnist.codes import Codes

NAMES = (
    "fashion-mnist/dcgan", "fashion-mnist/vae", "fashion-mnist/vae-gaussian", "fashion-mnist/ppgn",
    "toy2d/gan", "digiface-dcgan", "omniart-eyes", "omniart-eyes/blue", "progan-celeba128",
    "mobilestylegan-ffhq/256",
)  # fmt: skip


# Drawing, for any of them: 8 lines.
def drawn(name: str, count: int, seed: int = 0) -> np.ndarray:
    """Return draws of a generator: `[count, ...]`."""
    latents = jax.random.normal(
        jax.random.key(seed), (count, *jaxgen.models.describe(name).input_shape)
    )
    if name == "fashion-mnist/ppgn":  # its latents are codes of images
        images = jnp.asarray(drawn("fashion-mnist/dcgan", count, seed))
        latents = Codes.of(jaxgen.load("fashion-mnist/cnn"))(images)
    return np.asarray(jax.lax.map(jaxgen.load(name), latents))


def main(path: str) -> None:
    """Write the picture: a row of four draws for each name, in two columns."""
    figure, axes = plt.subplots(5, 8, figsize=(10, 7.2), layout="constrained")
    for i, name in enumerate(NAMES):
        row = axes[i % 5, 4 * (i // 5) : 4 * (i // 5) + 4]
        row[0].set_title(name, loc="left", fontsize=9)
        for axis, image in zip(row, drawn(name, 4 if name != "toy2d/gan" else 2000), strict=False):
            axis.axis("off")
            if name != "toy2d/gan":
                axis.imshow(np.clip(image, 0, 1), cmap="gray", vmin=0, vmax=1)
        if name == "toy2d/gan":
            row[0].scatter(*drawn(name, 2000).T, s=0.5)
            row[0].set_aspect("equal")
        print(name, flush=True)
    figure.savefig(path, dpi=110, pil_kwargs={"quality": 90} if path.endswith(".jpg") else None)


if __name__ == "__main__":
    main(sys.argv[1])
