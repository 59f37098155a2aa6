"""The parts of a report: chapters return sections of blocks; HTML, PDF, Markdown and LaTeX render them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from dlbench.report.analysis.content import Content
from dlbench.table import Table


@dataclass(frozen=True)
class Tooltip:
    """What a part of a figure tells when it is pointed at, the series it belongs to, and the attempt to go to."""

    text: str
    series: str = ""
    record: str = ""


@dataclass(frozen=True)
class Plot:
    """One figure with its words; without a figure the caption says why there is none."""

    name: str
    caption: str
    figure: Figure | None = None
    records: tuple[str, ...] = ()  # the attempts that it is drawn from
    runs: tuple[str, ...] = ()  # the runs of `dlbench ceilings`, `profile` and `allreduce` that it is drawn from
    marks: Mapping[str, Tooltip] = field(default_factory=dict)  # by the id of a part of the figure


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
    lead: bool = False  # shown while its chapter is folded
    emphasis: bool = False  # words that are set large
    points: tuple[str, ...] = ()  # a list of sentences


@dataclass(frozen=True)
class Section:
    """A chapter of a report: its finding in one sentence, and the blocks behind it."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default=())
    finding: str = ""
    folded: bool = True  # only the finding and the leading blocks are shown at once

    def leading_blocks(self) -> list[Block]:
        """The blocks that are shown at once: all, those marked so, the first figure, or the words that stand first."""
        if not self.folded:
            return list(self.blocks)
        marked = [block for block in self.blocks if block.lead]
        figures = [block for block in self.blocks if block.plot and block.plot.figure]
        words = [] if self.finding else [block for block in self.blocks[:1] if not block.table]
        return marked or figures[:1] or words

    def remaining_blocks(self) -> list[Block]:
        """The blocks that are shown on demand, and in the appendix of the printed report."""
        leading = self.leading_blocks()
        return [block for block in self.blocks if not any(block is one for one in leading)]


@dataclass(frozen=True)
class Report:
    """Everything that the forms of a report are written from."""

    content: Content
    sections: Sequence[Section]
    svgs: dict[str, str]  # of each figure by its name
    title: str
    subtitle: str
    folder: Path
