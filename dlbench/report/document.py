"""The parts of a report: chapters return sections of blocks; HTML, PDF, Markdown and LaTeX render them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from dlbench.report.analysis.content import Content
from dlbench.table import Table


@dataclass(frozen=True)
class Plot:
    """One figure with its words; without a figure the caption says why there is none."""

    name: str
    caption: str
    figure: Figure | None = None
    records: tuple[str, ...] = ()  # the attempts that it is drawn from
    runs: tuple[str, ...] = ()  # the runs of `dlbench ceilings`, `profile` and `allreduce` that it is drawn from


@dataclass(frozen=True)
class KeyFigure:
    """One large number at the head of a report."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Block:
    """One part of a section: words, key figures, a figure or a table, whichever is given."""

    words: str = ""
    figures: tuple[KeyFigure, ...] = ()
    plot: Plot | None = None
    table: Table | None = None
    heading: str = ""
    folded: bool = False  # shown on demand
    filters: tuple[str, ...] = ()  # columns of the table to choose by


@dataclass(frozen=True)
class Section:
    """A chapter of a report."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default=())


@dataclass(frozen=True)
class Report:
    """Everything that the forms of a report are written from."""

    content: Content
    sections: Sequence[Section]
    svgs: dict[str, str]  # of each figure by its name
    title: str
    subtitle: str
    folder: Path
