"""Pictures: what is drawn is what was given, pixel for pixel."""

import itertools

import numpy as np
import pytest

from jaxgen import InputError
from jaxgen.plotting import pictures


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def find(sheet, cell):
    """The one place (row, column) where a cell occurs in a sheet; fails unless it is one."""
    sheet, cell = np.asarray(sheet), np.asarray(cell)
    view = np.lib.stride_tricks.sliding_window_view(sheet, cell.shape)[:, :, 0]
    hits = np.argwhere((view == cell).all(axis=(-3, -2, -1)))
    assert len(hits) == 1
    return tuple(int(x) for x in hits[0])


def row_of(seed, truth=True):
    images = random_images(6, 6, 6, 1, seed=seed)
    return pictures.ReconstructionRow(
        label=f"image {seed}",
        note="half hidden",
        truth=images[0] if truth else None,
        observed=images[1],
        mean=images[2],
        draws=list(images[3:6]),
        deviation=0.3 * images[0],
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_tile_repeats_pixels(channels):
    image = random_images(4, 5, channels)
    got = np.asarray(pictures.tile(image, 3))
    wanted = np.kron(np.round(255 * image[..., 0]), np.ones((3, 3)))
    assert got.shape == (12, 15, 3)
    np.testing.assert_array_equal(got[..., 0], wanted)


def test_tile_clips_and_refuses_other_shapes():
    assert np.asarray(pictures.tile(np.full((1, 1, 1), 1.7))).max() == 255
    for shape in [(4, 4), (4, 4, 2)]:
        with pytest.raises(InputError, match="image: expected shape"):
            pictures.tile(np.zeros(shape))


def test_masked_keeps_what_is_observed():
    image, mask = random_images(4, 4, 1), np.eye(4)
    got = pictures.masked(image, mask)
    np.testing.assert_array_equal(got[mask > 0], image[mask > 0].repeat(3, -1))
    assert len(np.unique(got[mask == 0], axis=0)) == 1
    assert np.ptp(got[0, 1]) > 0.1  # a colour that no grey image has


def test_heat_gets_brighter():
    colours = pictures.heat(np.linspace(0, 0.4, 50)[None], 0.4)[0]
    luminance = colours @ np.array([0.2126, 0.7152, 0.0722])
    assert np.all(np.diff(luminance) > 0)
    np.testing.assert_array_equal(pictures.heat(np.array([[9.0]]), 0.4)[0, 0], colours[-1])


def test_class_grid_shows_every_image_once_in_its_row():
    rows = random_images(3, 4, 6, 6, 1)
    sheet = pictures.class_grid(list(rows), ["one", "two", "a longer name"], title="title")
    places = np.array([[find(sheet, pictures.tile(image, 2)) for image in row] for row in rows])
    assert np.all(np.ptp(places[..., 0], axis=1) == 0)
    assert np.all(np.ptp(places[..., 1], axis=0) == 0)
    assert np.all(np.diff(places[..., 1], axis=1) >= 12)
    assert np.all(np.diff(places[..., 0], axis=0) >= 12)
    margin = np.asarray(sheet)[:, : places[..., 1].min()]
    for y in places[:, 0, 0]:
        assert margin[y : y + 12].min() < 100  # a label stands before each row


def test_class_grid_needs_a_label_a_row():
    with pytest.raises(InputError, match="labels"):
        pictures.class_grid(list(random_images(2, 1, 4, 4, 1)), ["one"])


def test_reconstructions_show_all_columns_in_order():
    rows = [row_of(1), row_of(2)]
    sheet = pictures.reconstructions(rows)
    for row in rows:
        images = [row.truth, row.observed, row.mean, *row.draws]
        images.append(pictures.heat(row.deviation[..., 0], 0.3))
        places = [find(sheet, pictures.tile(image, 3)) for image in images]
        assert len({y for y, _ in places}) == 1
        assert [x for _, x in places] == sorted({x for _, x in places})


def test_reconstructions_without_truth_and_with_a_coarse_view():
    row = row_of(3, truth=False)._replace(observed=random_images(3, 3, 1))
    sheet = pictures.reconstructions([row], observed="low-resolution")
    find(sheet, pictures.tile(row.observed, 6))  # enlarged to the size of the others
    with pytest.raises(InputError, match="rows"):
        pictures.reconstructions([])


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (1, 6)])
def test_a_shuffled_grid_is_found_again(shape):
    rng = np.random.default_rng(1)
    cells = np.indices(shape).reshape(2, -1).T
    order = rng.permutation(len(cells))
    # Any scale and place; jitter of a fifth of a cell, so each point is nearest its own.
    points = cells[order][:, ::-1] + rng.uniform(-0.2, 0.2, (len(cells), 2))
    points = points * [30.0, 4.0] + [-5.0, 100.0]
    np.testing.assert_array_equal(pictures.grid_cells(points, shape), cells[order])


def test_an_assignment_is_one_to_one_and_the_best():
    points = np.random.default_rng(2).normal(size=(6, 2)) ** 3
    got = pictures.grid_cells(points, (2, 3))
    assert sorted(map(tuple, got)) == [(r, c) for r in range(2) for c in range(3)]
    unit = ((points - points.min(0)) / np.ptp(points, axis=0))[:, ::-1]

    def cost(cells):
        return np.sum((unit - np.asarray(cells) / [1, 2]) ** 2)

    everything = itertools.permutations([(r, c) for r in range(2) for c in range(3)])
    assert cost(got) == pytest.approx(min(map(cost, everything)))


def test_points_need_not_fill_a_grid():
    got = pictures.grid_cells(np.random.default_rng(3).normal(size=(10, 2)))
    assert len(np.unique(got, axis=0)) == 10
    assert got.min() >= 0
    assert got.max() == 3  # of the smallest square that holds them
    flat = pictures.grid_cells(np.array([[2.0, 1.0], [0.0, 1.0]]), (1, 2))
    np.testing.assert_array_equal(flat, [[0, 1], [0, 0]])


def test_grid_cells_refuses_what_it_cannot_place():
    with pytest.raises(InputError, match="points: expected shape"):
        pictures.grid_cells(np.zeros((4, 3)))
    with pytest.raises(InputError, match="points: expected finite"):
        pictures.grid_cells(np.array([[0.0, np.nan]]))
    with pytest.raises(InputError, match="shape: expected at least 5 cells"):
        pictures.grid_cells(np.zeros((5, 2)), (2, 2))


def test_mosaic_puts_each_image_into_its_cell():
    images, cells = random_images(3, 4, 6, 1), np.array([[1, 0], [0, 2], [1, 1]])
    sheet = pictures.mosaic(images, cells, scale=2)
    assert sheet.size == (3 * 12, 2 * 8)
    for image, (row, column) in zip(images, cells, strict=True):
        assert find(sheet, pictures.tile(image, 2)) == (8 * row, 12 * column)
    assert np.asarray(sheet)[:8, :12].min() == 255  # nobody's cell
    titled = pictures.mosaic(images, cells, title="three images", scale=2)
    assert titled.height > sheet.height
    find(titled, pictures.tile(images[0], 2))


def test_mosaic_needs_a_cell_for_each_image():
    images = random_images(2, 4, 4, 1)
    with pytest.raises(InputError, match="cells: expected shape"):
        pictures.mosaic(images, np.zeros((3, 2), int))
    with pytest.raises(InputError, match="cells: expected a cell of its own"):
        pictures.mosaic(images, np.zeros((2, 2), int))
