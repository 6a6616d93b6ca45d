"""What people reported of pictures and masks elsewhere."""

import numpy as np
import pytest
from PIL import Image

from jaxgen import InputError
from jaxgen.cli.inputs import read_image, read_mask


def lopsided(height=4, width=6):
    """A picture of which every corner differs."""
    return np.arange(height * width, dtype=np.uint8).reshape(height, width) * 8


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda x: x),
        (3, lambda x: np.rot90(x, 2)),
        (6, lambda x: np.rot90(x, 1)),
        (8, lambda x: np.rot90(x, -1)),
        (2, np.fliplr),
    ],
)
def test_a_photograph_is_turned_as_the_camera_noted(tmp_path, orientation, turned):
    """python-pillow/Pillow 9109, 1188: EXIF orientation was ignored."""
    stored = np.ascontiguousarray(turned(lopsided()))
    picture = Image.fromarray(stored)
    notes = picture.getexif()
    notes[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=notes)
    image = read_image(str(tmp_path / "a.png"), [(4, 6)], 1).image
    np.testing.assert_array_equal(np.rint(image[..., 0] * 255), lopsided())
    if orientation in (6, 8):
        with pytest.raises(InputError, match="expected 4 x 6 pixels; got 6 x 4"):
            read_image(str(tmp_path / "a.png"), [(6, 4)], 1)


@pytest.mark.parametrize("colour", ["white", "picture"])
def test_what_is_transparent_in_a_mask_is_hidden(tmp_path, colour):
    """mittagessen/kraken pull request 760: the alpha of a mask was ignored."""
    rgba = np.full((4, 6, 4), 255, np.uint8)
    rgba[:2, :, 3] = 0
    if colour == "picture":
        rgba[2:, :3, :3] = 0
    Image.fromarray(rgba).save(tmp_path / "mask.png")
    wanted = np.zeros((4, 6))
    wanted[2:, 3 if colour == "picture" else 0 :] = 1
    np.testing.assert_array_equal(read_mask(str(tmp_path / "mask.png"), (4, 6)), wanted)


def test_a_mask_of_16_bits_is_divided_at_half_of_its_range(tmp_path):
    """python-pillow/Pillow 9109: 16 bits were clipped to 8, so that dark grey was white."""
    values = np.array([[0, 300, 32767], [32768, 40000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "mask.png")
    mask = read_mask(str(tmp_path / "mask.png"), (2, 3))
    np.testing.assert_array_equal(mask, [[0, 0, 0], [1, 1, 1]])


def test_an_array_with_its_channels_first_is_told_to_be_transposed(tmp_path):
    """A `[1, 28, 28]` array of PyTorch was told to be resized."""
    np.save(tmp_path / "a.npy", np.full((1, 28, 28), 0.5))
    with pytest.raises(InputError, match="Transpose it: channels come last"):
        read_image(str(tmp_path / "a.npy"), [(28, 28)], 1)
