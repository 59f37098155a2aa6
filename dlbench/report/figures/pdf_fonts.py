"""The fonts inside figures in PDF: the glyphs that most of them use are cut out of a font once, not for every figure.

Cutting takes half of the time of a small figure. matplotlib has no setting for it, so that its function is replaced
while figures are saved; where it is another than the one known here, it stays, and figures just take longer.
"""

import string
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from io import BytesIO
from typing import Any

from fontTools.ttLib import TTFont  # type: ignore[import-untyped]
from matplotlib import font_manager
from matplotlib.backends import _backend_pdf_ps

from dlbench.units import GROUP_SEPARATOR

#: What a figure may well hold; another character costs it a cut of its own. The last are ligatures.
_USUAL_CHARACTERS = string.printable.strip() + f" {GROUP_SEPARATOR}–—…×±·µ≤≥≈∞−→²³√▸▾□€°" + "ﬀﬁﬂﬃﬄ"

#: A font file with some glyphs, and where each of them is in it.
FontSubset = tuple[bytes, dict[int, int]]

_matplotlib_subset: Any = getattr(_backend_pdf_ps, "get_glyphs_subset", None)
_is_supported = _matplotlib_subset is not None and hasattr(_backend_pdf_ps, "SubsetResults")
_subset_cache: dict[tuple[str, frozenset[int]], FontSubset] = {}


@contextmanager
def share_font_subsets() -> Iterator[None]:
    """Within this context the figures that this process saves share their cut fonts."""
    if not _is_supported:
        yield
        return
    _backend_pdf_ps.get_glyphs_subset = _subset_font  # type: ignore[assignment]
    try:
        yield
    finally:
        _backend_pdf_ps.get_glyphs_subset = _matplotlib_subset


def build_common_font_subsets() -> dict[tuple[str, frozenset[int]], FontSubset]:
    """The cuts that do for most figures; another process may make them, for `add_cached_font_subsets`."""
    for weight in ("normal", "bold") if _is_supported else ():
        file = font_manager.findfont(font_manager.FontProperties(family=["DejaVu Sans"], weight=weight))
        _cached_font_subset(file, _common_glyphs(file))
    return _subset_cache


def add_cached_font_subsets(cuts: dict[tuple[str, frozenset[int]], FontSubset]) -> None:
    """Use these cuts from now on."""
    _subset_cache.update(cuts)


def _subset_font(file: Any, glyphs: Iterable[int]) -> AbstractContextManager[Any]:
    """As matplotlib's: the font with these glyphs and the usual ones, and where each of them is in it."""
    font, places = _cached_font_subset(file, _common_glyphs(file) | frozenset(glyphs))
    return _backend_pdf_ps.SubsetResults(TTFont(BytesIO(font), recalcTimestamp=False), places)._as_cm()


def _cached_font_subset(file: Any, glyphs: frozenset[int]) -> FontSubset:
    key = str(file), glyphs
    if key not in _subset_cache:
        with _matplotlib_subset(file, set(glyphs)) as made:
            font = BytesIO()
            made.font.save(font, reorderTables=False)
            _subset_cache[key] = font.getvalue(), made.glyph_index_map
    return _subset_cache[key]


@cache
def _common_glyphs(file: Any) -> frozenset[int]:
    font = font_manager.get_font(file)
    return frozenset(font.get_char_index(ord(character)) for character in _USUAL_CHARACTERS)
