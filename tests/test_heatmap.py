"""Heat maps are computed from features, scaled to images, drawn in colors and written as numbers."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from app.errors import ImageTooLarge, UnreadableImage
from app.processing.heatmap import (
    ANCHORS,
    COVER,
    PALETTE,
    HeatMap,
    Style,
    draw_heat_map,
    enlarge,
    lay_over,
    locate,
    make_heat_map,
    open_canvas,
    write_numbers,
)
from app.processing.images import WHOLE, InputTransform, decode_image
from tests.helpers import encode, photo_like

SPOT = np.zeros((7, 7), np.float32)
SPOT[1, 5] = 1  # above, right


def luminance(colors: np.ndarray) -> np.ndarray:
    return np.asarray(colors) @ (0.2126, 0.7152, 0.0722)


def test_a_map_is_each_cells_share_of_the_logit_relative_to_the_largest():
    features = np.float32([[[1, 2], [0, 4]], [[1, 0], [3, 0]]])  # (2, 2, 2)
    heat_map = make_heat_map(features, np.float32([4, -4]))
    # A cell's share of the logit: 1 × each feature of the first channel, -1 × of the second.
    assert heat_map.values.tolist() == [[0, 0.5], [0, 1]]
    assert heat_map.values.dtype == np.float32
    assert heat_map.peak == 4


def test_a_label_without_evidence_has_an_empty_map():
    heat_map = make_heat_map(np.ones((3, 7, 7), np.float32), np.full(3, -1, np.float32))
    assert not heat_map.values.any()
    assert heat_map.peak == 0


def test_an_upscaled_map_has_its_values_at_the_centers_of_its_cells():
    spread = enlarge(SPOT, (700, 350), WHOLE)
    assert spread.shape == (350, 700)
    assert spread.dtype == np.float32
    assert (int(spread.argmax()) // 700, int(spread.argmax()) % 700) == pytest.approx(
        (75, 550), abs=1
    )
    assert spread.max() == pytest.approx(1, abs=1e-3)
    assert spread.min() == 0
    assert spread[75, :450].max() < 0.01
    assert spread[125:, :].max() < 0.6  # from the cell's edge on


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (33, 1000), (1000, 33), (1, 1), (2, 900)])
def test_the_map_covers_only_the_crop_that_the_network_saw(size):
    """The image is a bright square in a dark one: the map begins at the edge of the bright part."""
    transform = InputTransform(224, 256)
    left, top, right, bottom = locate(size, transform)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    spread = enlarge(np.ones((7, 7), np.float32), size, transform)
    assert (spread[top:bottom, left:right] == 1).all()
    assert spread.sum() == (right - left) * (bottom - top)
    inside = Image.new("L", size)
    inside.paste(255, (left, top, right, bottom))
    seen = decode_image(
        io.BytesIO(encode(inside.convert("RGB"), "PNG")), 10**9, transform=transform
    )
    if min(size) > 200:  # otherwise a pixel is wider than the rounding error
        assert (seen[:, 2:-2, 2:-2] > 250).all()  # all that it saw is inside
        grown = Image.new("L", size, 255)
        grown.paste(0, (left, top, right, bottom))
        unseen = decode_image(
            io.BytesIO(encode(grown.convert("RGB"), "PNG")), 10**9, transform=transform
        )
        assert (unseen[:, 2:-2, 2:-2] < 5).all()  # and all that is inside it saw


def test_colors_rise_in_lightness_and_opacity_with_heat():
    assert (np.diff(luminance(ANCHORS)) > 20).all()
    assert (np.diff(luminance(PALETTE)) > 0).all()
    assert PALETTE.shape == (256, 3)
    assert (np.diff(COVER) >= 0).all()
    assert (COVER[0], COVER[-1]) == (0.2, 1)


def test_a_drawing_is_the_image_at_no_opacity_and_the_colors_of_hot_cells_at_full():
    canvas = photo_like(320, 240)
    spread = enlarge(SPOT, canvas.size, WHOLE)
    assert lay_over(canvas, spread, WHOLE, 0.0).tobytes() == canvas.tobytes()
    drawn = np.asarray(lay_over(canvas, spread, WHOLE, 1.0))
    hottest = np.unravel_index(spread.argmax(), spread.shape)
    assert np.abs(drawn[hottest].astype(int) - ANCHORS[-1]).max() <= 2
    grays = np.asarray(canvas.convert("L"))[120:, :160]
    cold = drawn[120:, :160].astype(float).mean(axis=2)
    assert np.corrcoef(grays.ravel(), cold.ravel())[0, 1] > 0.99  # the image can still be read


def test_parts_that_the_network_did_not_see_are_veiled():
    canvas = Image.new("RGB", (400, 200), (0, 90, 0))
    transform = InputTransform(224, 224)
    drawn = np.asarray(lay_over(canvas, enlarge(SPOT, canvas.size, transform), transform, 0.5))
    assert drawn[100, 50].min() > 120  # halfway to white
    assert drawn[100, 200].max() < 120
    assert (drawn[:, 99] != drawn[:, 100]).any()


def test_a_drawing_is_a_file_with_the_maps_numbers():
    canvas = photo_like(90, 60)
    drawing = draw_heat_map(canvas, HeatMap(SPOT, 2.5), WHOLE, Style())
    image = Image.open(io.BytesIO(drawing.png))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (90, 60))
    assert json.loads(drawing.numbers) == SPOT.tolist()
    assert drawing.took_s > 0
    enlarged = draw_heat_map(canvas, HeatMap(SPOT, 2.5), WHOLE, Style(enlarged=True))
    assert np.shape(json.loads(enlarged.numbers)) == (60, 90)
    assert enlarged.png == drawing.png


def test_numbers_are_written_with_three_digits():
    values = np.float32([[0, 1, 0.5], [0.0004, 0.0006, 0.98765]])
    assert write_numbers(values) == b"[[0.000,1.000,0.500],[0.000,0.001,0.988]]"


def test_a_canvas_is_at_most_1024_px_and_never_larger_than_its_image():
    large = encode(photo_like(2600, 1300), "JPEG")
    assert open_canvas(io.BytesIO(large), 10**9).size == (1024, 512)
    assert open_canvas(io.BytesIO(encode(photo_like(), "PNG")), 10**9).size == (60, 40)
    assert open_canvas(np.zeros((4000, 1, 3), np.uint8), 10**9).size == (1, 1024)


def test_a_canvas_has_the_orientation_that_the_network_sees():
    exif = Image.Exif()
    exif[274] = 6  # turn by 90° to see it upright
    data = encode(photo_like(), "JPEG", exif=exif)
    assert open_canvas(io.BytesIO(data), 10**9).size == (60, 40)
    assert open_canvas(io.BytesIO(data), 10**9, exif_rotate=True).size == (40, 60)


def test_an_image_that_cannot_be_drawn_on_is_reported():
    data = encode(photo_like(300, 200), "JPEG")
    with pytest.raises(UnreadableImage, match="JPEG but is damaged"):
        open_canvas(io.BytesIO(data[: len(data) // 2]), 10**9)
    with pytest.raises(ImageTooLarge):
        open_canvas(io.BytesIO(data), 1000)
