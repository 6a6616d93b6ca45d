"""Faces in the frame of FFHQ."""

import numpy as np
import pytest

from jaxgen.applications.alignment import align_face, face_frame
from jaxgen.core.errors import InputError


def test_the_frame_is_that_of_the_published_script():
    # Upright: eyes 20 px apart, the mouth 22 px below them; half the side is 2 x 20.
    centre, x, y = face_frame((40, 50), (60, 50), (50, 72))
    np.testing.assert_allclose(centre, (50, 52.2))
    np.testing.assert_allclose(x, (40, 0), atol=1e-9)
    np.testing.assert_allclose(y, (0, 40), atol=1e-9)
    # A long face: 1.8 times from the eyes to the mouth is more.
    _, x, _ = face_frame((40, 50), (60, 50), (50, 80))
    np.testing.assert_allclose(np.hypot(*x), 54)
    # Turned by a right angle, the frame turns with it.
    centre, x, y = face_frame((50, 40), (50, 60), (28, 50))
    np.testing.assert_allclose(x, (0, 40), atol=1e-9)
    np.testing.assert_allclose(y, (-40, 0), atol=1e-9)


def test_pixels_come_from_where_they_should_and_those_outside_are_hidden():
    rows, columns = np.mgrid[:100, :100] + 0.5
    image = np.stack([columns, rows], -1) / 100
    aligned, seen = align_face(image, (40, 50), (60, 50), (50, 72), 80)
    # The square goes from 10 to 90 in columns, from 12.2 to 92.2 in rows: a pixel for a pixel.
    np.testing.assert_allclose(
        aligned[:, :, 0], np.broadcast_to(np.arange(10.5, 90) / 100, (80, 80)), atol=1e-5
    )
    np.testing.assert_allclose(aligned[:, 3, 1], np.arange(12.7, 92) / 100, atol=1e-5)
    assert seen.all()
    aligned, seen = align_face(image, (5, 50), (25, 50), (15, 72), 80)
    assert not seen[:, :25].any()
    assert seen[:, 26:].all()
    np.testing.assert_allclose(aligned[40, 26:, 0], np.arange(1.5, 55) / 100, atol=1e-5)


def test_points_that_say_nothing_are_refused():
    for points in [
        ((1, 1), (1, 1), (5, 9)),
        ((1, 1), (9, 1), (5, 1)),
        ((1, np.nan), (9, 1), (5, 9)),
    ]:
        with pytest.raises(InputError, match="landmarks"):
            face_frame(*points)
