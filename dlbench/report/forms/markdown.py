"""The report as Markdown, with its figures as files beside it."""

from collections.abc import Sequence

from dlbench.report.document import Block, Section
from dlbench.table import escape_markdown, markdown_table


def markdown_report(sections: Sequence[Section], title: str) -> str:
    """All sections under a title."""
    lines = [f"# {escape_markdown(title)}", ""]
    for section in sections:
        lines += [f"## {escape_markdown(section.title)}", ""]
        lines += [escape_markdown(section.finding), ""] if section.finding else []
        for block in section.blocks:
            lines += [line for part in _markdown_block(block) for line in (part, "")]
    return "\n".join(lines)


def _markdown_block(block: Block) -> list[str]:
    parts = [f"### {escape_markdown(block.heading)}"] if block.heading else []
    parts += [escape_markdown(block.words)] if block.words else []
    parts += ["\n".join(f"- {escape_markdown(point)}" for point in block.points)] if block.points else []
    figures = [(escape_markdown(f.value), escape_markdown(f"{f.label} ({f.note})")) for f in block.figures]
    parts += ["\n".join(f"- **{value}** {label}" for value, label in figures)] if figures else []
    if block.plot:
        caption = escape_markdown(block.plot.caption)
        parts += [f"![{caption}](figures/{block.plot.name}.svg)"] if block.plot.figure else []
        parts.append(f"*{caption}*")
    return parts + ([markdown_table(block.table)] if block.table else [])
