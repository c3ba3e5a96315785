"""Draw the page's example picture of coloured digits: `python -m checkpoints.training.draw_digit_example FILE`.

The digits are lines drawn here, and no images of a data set.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from checkpoints.training.digit_scenes import COLORS, SIDE

SCALE = 8  # pixels of the picture for each pixel that the network sees
CELL = SIDE // 2
LINE_WIDTH = 2.6  # of a cell of 24
BACKGROUND = (18, 16, 24)
STROKES = {  # points of the lines of each digit, in a cell of 24
    "seven": [[(5.5, 5.5), (10, 4.8), (17.5, 5), (14.5, 10), (11.5, 15), (10, 19.5)]],
    "two": [[(6, 8), (7.5, 5), (12, 4), (15.8, 6), (16, 9), (13, 13), (8, 17), (5.5, 19), (12, 18.6), (18.5, 19)]],
    "four": [[(8, 4.5), (6.5, 9), (5.5, 12.5), (11, 12.6), (17.5, 12.2)], [(15, 4.5), (14.5, 11), (14, 19.5)]],
}
DIGITS = (
    ("red", "seven", (0, 0)),
    ("blue", "two", (1, 1)),
    ("yellow", "four", (0, 1)),
)  # colour, digit, row and column


def draw_example() -> Image.Image:
    """Return the picture, RGB, of `SCALE` times the side of a scene."""
    picture = Image.new("RGB", (SIDE * SCALE, SIDE * SCALE), BACKGROUND)
    for color, digit, (row, column) in DIGITS:
        mask = Image.new("L", picture.size)
        pen, radius = ImageDraw.Draw(mask), LINE_WIDTH * SCALE / 2
        for stroke in STROKES[digit]:
            points = [((x + CELL * column) * SCALE, (y + CELL * row) * SCALE) for x, y in stroke]
            for start, end in pairwise(points):
                pen.line([start, end], fill=255, width=round(2 * radius))
            for x, y in points:
                pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
        paint = tuple(round(255 * channel) for channel in COLORS[color])
        picture.paste(paint, mask=mask.filter(ImageFilter.GaussianBlur(SCALE / 3)))
    return picture


if __name__ == "__main__":
    draw_example().save(Path(sys.argv[1]), optimize=True)
