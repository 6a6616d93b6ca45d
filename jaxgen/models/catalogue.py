"""The names of models, and nothing that has to be computed or imported for them."""

__all__ = ["FETCHABLE", "PARTS", "SHIPPED", "TRAINABLE"]

SHIPPED = {
    "fashion-mnist/gan": "fashion_mnist_gan",
    "fashion-mnist/classifier": "fashion_mnist_classifier",
    "fashion-mnist/dcgan": "fashion_mnist_dcgan",
    "fashion-mnist/dcgan-discriminator": "fashion_mnist_dcgan_discriminator",
    "fashion-mnist/vae": "fashion_mnist_vae",
    "fashion-mnist/vae-encoder": "fashion_mnist_vae_encoder",
    "fashion-mnist/vae-gaussian": "fashion_mnist_vae_gaussian",
    "fashion-mnist/vae-gaussian-encoder": "fashion_mnist_vae_gaussian_encoder",
    "fashion-mnist/cnn": "fashion_mnist_cnn",
    "fashion-mnist/judge": "fashion_mnist_judge",
    "fashion-mnist/realism": "fashion_mnist_realism",
    "fashion-mnist/captioner": "fashion_mnist_captioner",
    "fashion-mnist/ppgn": "fashion_mnist_ppgn",
    "fashion-mnist/ppgn-joint": "fashion_mnist_ppgn_joint",
    "fashion-mnist/dae-codes": "fashion_mnist_dae_codes",
    "fashion-mnist/dae-images": "fashion_mnist_dae_images",
    "toy2d/gan": "toy2d_gan_15000",
    "toy2d/gan-500": "toy2d_gan_500",
    "toy2d/gan-1500": "toy2d_gan_1500",
    "toy2d/gan-2500": "toy2d_gan_2500",
    "toy2d/gan-15000": "toy2d_gan_15000",
}
"""Name -> the stem of its file in `jaxgen/shipped`."""

# Recipes whose weights are not shipped: `jaxgen train` makes a file to load by its path.
TRAINABLE = (
    "fashion-mnist/began",
    "fashion-mnist/began-features",
    "fashion-mnist/wgan-gp",
    "fashion-mnist/beta-vae",
    "fashion-mnist/bgan",
    "text/writer",
    "text/seqgan",
    "text/infiller",
    "text/maskgan",
)

FETCHABLE = (
    "progan-celeba128",
    "mobilestylegan-ffhq",
    "digiface-dcgan",
    "omniart-eyes",
    "efficientnet-lite0",
    "face-expression",
    "face-age-gender",
    "face-age",
    "face-gender",
)
"""The names that `jaxgen fetch` knows."""

PARTS = {
    "mobilestylegan-ffhq": (
        "512",
        "256",
        "128",
        "mapping",
        "synthesis",
        "synthesis-512",
        "synthesis-256",
        "synthesis-128",
        "16",
        "synthesis-16",
        "32",
        "synthesis-32",
        "p",
        "p-512",
        "p-256",
        "p-128",
        "p-16",
        "p-32",
    ),
    "omniart-eyes": (
        "amber",
        "blue",
        "brown",
        "gray",
        "grayscale",
        "green",
        "hazel",
        "red",
        "any",
    ),
}
"""What else is in a fetched file: `jaxgen.load("mobilestylegan-ffhq/128")`."""
