"""Places for the names of points, so that no name covers a point or another name."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from dlbench.report.figures import figure_style as look

#: Left, bottom, right and top in points of print.
Box = tuple[float, ...]
_FONT_SIZE = 8.5
_CHARACTER_WIDTH = 5.4  # width of a character, in points of print
_HALF_HEIGHT = 5.5
#: Half the size of a point's mark.
_POINT_RADIUS = 3.5


@dataclass
class LabelPlacer:
    """A panel that is laid out, with what is drawn on it already."""

    axes: Axes
    marks: list[Box]
    labels: list[Box] = field(default_factory=list)

    def add_label(self, x: float, y: float, text: str) -> bool:
        """Write `text` near the point at (x, y), with a line to it from afar; False where there is no room."""
        px, py = (float(v) for v in self.axes.transData.transform((x, y)) * _points_per_pixel(self.axes))
        found = self._find_free_position(px, py, _CHARACTER_WIDTH * len(text))
        if found is None:
            return False
        dx, dy, box = found
        self.labels.append(box)
        line: Any = {"arrowstyle": "-", "color": look.MUTED, "lw": 0.5, "shrinkA": 0, "shrinkB": 2}
        note = self.axes.annotate(
            text, (x, y), (dx, dy), textcoords="offset points", ha="right" if dx < 0 else "left", va="center",
            fontsize=_FONT_SIZE, arrowprops=line if abs(dy) > 12 else None,
        )  # fmt: skip
        note.set_in_layout(False)
        return True

    def _find_free_position(self, px: float, py: float, width: float) -> tuple[float, float, Box] | None:
        panel = [float(v) * _points_per_pixel(self.axes) for v in self.axes.bbox.extents]
        for dy in (sign * step for step in range(0, 120, 3) for sign in (1, -1)):
            for dx in (-7, 7):
                left = px + dx - (width if dx < 0 else 0)
                box = (left, py + dy - _HALF_HEIGHT, left + width, py + dy + _HALF_HEIGHT)
                inside = panel[0] <= box[0] and panel[1] <= box[1] and box[2] <= panel[2] and box[3] <= panel[3]
                if inside and not any(_boxes_overlap(box, other) for other in (*self.labels, *self.marks)):
                    return dx, dy, box
        return None


def new_label_placer(axes: Axes, points: pd.DataFrame) -> LabelPlacer:
    """The places on a panel that is laid out; `points` has the columns x and y of every point on it."""
    marks = axes.transData.transform(points.to_numpy(dtype=float)) * _points_per_pixel(axes)
    texts = [tuple(float(v) * _points_per_pixel(axes) for v in text.get_window_extent().extents) for text in axes.texts]
    half = _POINT_RADIUS
    return LabelPlacer(axes, [(x - half, y - half, x + half, y + half) for x, y in marks], texts)


def label_points(on: LabelPlacer, points: Iterable[tuple[float, float, str]], most: int) -> Sequence[str]:
    """Name the first `most` points that there is room for; gives the names."""
    done: list[str] = []
    for x, y, text in points:
        if len(done) == most:
            break
        if on.add_label(x, y, text):
            done.append(text)
    return done


def _boxes_overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _points_per_pixel(axes: Axes) -> float:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return 72 / figure.dpi
