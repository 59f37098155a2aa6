"""How every figure looks, and how it becomes a file: the same bytes for the same data.

Figures are made without pyplot, so that nothing global changes. The palette is that of Okabe and Ito ("Color Universal
Design", 2008), whose colours people with any colour vision tell apart; no meaning is carried by colour alone where a
label fits.
"""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dlbench.report.analysis.labels import shorten_in_middle
from dlbench.report.figures import pdf_fonts

INK, MUTED, GRID, PAPER = "#1f2933", "#5f6b7a", "#dfe4ea", "#ffffff"
BLUE, SKY, GREEN, ORANGE = "#0072b2", "#56b4e9", "#009e73", "#e69f00"
VERMILION, PINK, GREY = "#d55e00", "#cc79a7", "#a9b3be"
PRECISION_COLOURS = {"fp32": BLUE, "tf32": ORANGE, "amp_bf16": GREEN, "amp_fp16": PINK, "bf16": SKY, "fp16": VERMILION}
#: All figures are as wide as this [inch], so that their texts are of one size on the page.
FIGURE_WIDTH = 9.0

_STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelsize": 9.0,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.6,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    # A model may be called "$\frac": texts are never formulas.
    "text.parse_math": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 9.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "figure.facecolor": PAPER,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "savefig.facecolor": PAPER,
    # Texts stay texts: they can be searched, read aloud and edited, and take the page's font.
    "svg.fonttype": "none",
    "svg.hashsalt": "dlbench",
    "pdf.fonttype": 42,
    "path.simplify": True,
}
#: Each figure is written in these formats, with metadata that tell no date and no version.
FILE_FORMATS: dict[str, dict[str, str | None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


@contextmanager
def plot_style() -> Iterator[None]:
    """Within this context figures are made and saved in the house style, whatever a user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


class NotebookFigure(Figure):
    """A figure that a notebook shows by itself, without `%matplotlib inline`."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        with plot_style():
            self.savefig(content, format="png", dpi=110)
        return content.getvalue()


def new_figure(height: float) -> Figure:
    """An empty figure of the common width and the given height [inch]; its parts make room for each other."""
    figure = NotebookFigure(figsize=(FIGURE_WIDTH, height), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.06, h_pad=0.06, wspace=0.04, hspace=0.06)
    return figure


def compute_layout(figure: Figure) -> None:
    """Give the parts of a figure their places, as drawing would, but draw nothing."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)


def save_figure(figure: Figure, folder: Path, name: str) -> str:
    """Write `figure` as SVG, PNG and PDF into `folder`; gives the text of the SVG. To be called within `plot_style`."""
    # Laid out once, so that all three look the same, and without an engine that would do it again.
    compute_layout(figure)
    figure.set_layout_engine(None)
    folder.mkdir(parents=True, exist_ok=True)
    with pdf_fonts.share_font_subsets():
        for extension, metadata in FILE_FORMATS.items():
            figure.savefig(folder / f"{name}.{extension}", metadata=metadata, dpi=170)
    return (folder / f"{name}.svg").read_text(encoding="utf-8")


def save_figures(figures: Mapping[str, Figure], folder: Path) -> dict[str, str]:
    """`save_figure` of several figures by their names."""
    return {name: save_figure(figure, folder, name) for name, figure in figures.items()}


def adapt_svg_for_page(svg: str, name: str, label: str) -> str:
    """`svg` for use inside a page: without prolog, its ids made unique by `name`, its neutral colours left to the page.

    Args:
        label: what the figure shows, for those who cannot see it; must be escaped for an HTML attribute.
    """
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg)
    svg = _compact_svg(svg.replace("xlink:href", "href"))
    svg = re.sub(r'(\sid="|\shref="#|url\(#)', rf"\g<1>{name}-", svg)
    page_colours = {"ink": INK, "muted": MUTED, "grid": GRID, "paper": PAPER, "line": GREY, "blue": BLUE, "sky": SKY}
    for variable, colour in page_colours.items():
        svg = svg.replace(colour, f"var(--figure-{variable})")
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', svg, count=1)
    return svg.replace('role="img">', f'role="img" aria-label="{label}">', 1)


def _compact_svg(svg: str) -> str:
    """`svg` in fewer bytes: no indents, a hundredth of a point is enough, and only marks and what is used have ids."""
    svg = re.sub(r'<g id="(?!mark-)[^"]*">', "<g>", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    # The page names the font once.
    svg = svg.replace("font-family: 'DejaVu Sans'; ", "")
    svg = re.sub(r'(?<= d=")[^"]*|(?<= [xy]=")[^"]*', lambda found: _EXTRA_DECIMALS.sub(r"\1", found[0]), svg)
    return re.sub(r" *\n *", "\n", svg)


#: What follows the second decimal of a number.
_EXTRA_DECIMALS = re.compile(r"(\.\d\d)\d+")


def add_legend(figure: Figure, entries: dict[str, dict[str, Any]]) -> None:
    """Names with their marks above all panels, in one line if they fit; `entries` maps names to properties of marks."""
    common: dict[str, Any] = {"ls": "none", "marker": "o", "markersize": 6}
    handles = [Line2D([], [], **(common | mark)) for mark in entries.values()]
    place: Any = "outside upper left"
    look: dict[str, Any] = {"handletextpad": 0.4, "columnspacing": 1.6, "handlelength": 1.4}
    if len(entries) > 5:
        look |= {"columnspacing": 0.9, "handlelength": 1.0, "fontsize": 8.0}
    names = [fit_text_for_figure(name) for name in entries]
    line = _LEGEND_LINE if len(entries) > 5 else _LEGEND_LINE - 25
    fits = sum(len(name) + 5 for name in names) <= line
    ncols = len(names) if fits else max(1, line // (max(map(len, names)) + 5))
    figure.legend(handles, names, loc=place, ncols=ncols, **look)


#: So many characters of a legend in small print go into one line.
_LEGEND_LINE = 150


def bar_legend_markers(entries: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The marks of stacked bars, for `add_legend`: names with colours."""
    return {name: {"marker": "s", "color": colour, "markersize": 7} for name, colour in entries.items()}


def fit_text_for_figure(text: str, limit: int = 34) -> str:
    """`text` cut to `limit` characters, with a box for each character that the figures' font lacks."""
    return "".join(c if _font_has_glyph(c) else "□" for c in shorten_in_middle(" ".join(text.split()), limit))


@cache
def _font_has_glyph(character: str) -> bool:
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return character.isprintable() and font.get_char_index(ord(character)) != 0


def hide_left_axis(axes: Axes) -> None:
    """For rows of names: no line and no ticks on the left, no grid across."""
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
