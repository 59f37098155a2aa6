"""The fonts inside figures in PDF: the glyphs that most of them use are cut out of a font once, not for every figure.

Cutting takes half of the time of a small figure. matplotlib has no setting for it, so that its function is replaced
while figures are saved; where it is another than the one known here, it stays, and figures just take longer.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from io import BytesIO
from typing import Any

from fontTools.ttLib import TTFont  # type: ignore[import-untyped]
from matplotlib import font_manager
from matplotlib.backends import _backend_pdf_ps

from dlbench.units import GROUP

#: What a figure may well hold; another character costs it a cut of its own. The last are ligatures.
_USUAL = string.printable.strip() + f" {GROUP}–—…×±·µ≤≥≈∞−→²³√▸▾□€°" + "ﬀﬁﬂﬃﬄ"

#: A font file with some glyphs, and where each of them is in it.
Cut = tuple[bytes, dict[int, int]]

_cut: Any = getattr(_backend_pdf_ps, "get_glyphs_subset", None)
_known = _cut is not None and hasattr(_backend_pdf_ps, "SubsetResults")
_made: dict[tuple[str, frozenset[int]], Cut] = {}


@contextmanager
def shared() -> Iterator[None]:
    """Within this context the figures that this process saves share their cut fonts."""
    if not _known:
        yield
        return
    _backend_pdf_ps.get_glyphs_subset = _subset  # type: ignore[assignment]
    try:
        yield
    finally:
        _backend_pdf_ps.get_glyphs_subset = _cut


def usual() -> dict[tuple[str, frozenset[int]], Cut]:
    """The cuts that do for most figures; another process may make them, for `remember`."""
    for weight in ("normal", "bold") if _known else ():
        file = font_manager.findfont(font_manager.FontProperties(family=["DejaVu Sans"], weight=weight))
        _made_of(file, _usual(file))
    return _made


def remember(cuts: dict[tuple[str, frozenset[int]], Cut]) -> None:
    """Use these cuts from now on."""
    _made.update(cuts)


def _subset(file: Any, glyphs: Iterable[int]) -> AbstractContextManager[Any]:
    """As matplotlib's: the font with these glyphs and the usual ones, and where each of them is in it."""
    font, places = _made_of(file, _usual(file) | frozenset(glyphs))
    return _backend_pdf_ps.SubsetResults(TTFont(BytesIO(font), recalcTimestamp=False), places)._as_cm()


def _made_of(file: Any, glyphs: frozenset[int]) -> Cut:
    key = str(file), glyphs
    if key not in _made:
        with _cut(file, set(glyphs)) as made:
            font = BytesIO()
            made.font.save(font, reorderTables=False)
            _made[key] = font.getvalue(), made.glyph_index_map
    return _made[key]


@cache
def _usual(file: Any) -> frozenset[int]:
    font = font_manager.get_font(file)
    return frozenset(font.get_char_index(ord(character)) for character in _USUAL)
