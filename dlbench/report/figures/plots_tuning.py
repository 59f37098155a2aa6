"""The waterfall of a tuned network: what each lever adds to the default setting."""

from collections.abc import Sequence

from dlbench import units
from dlbench.report.analysis.labels import network_title
from dlbench.report.analysis.tuning import tuning_goal_heading
from dlbench.report.document import Plot
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.figure_parts import SMALL_TEXT_STYLE, figure_height, set_row_labels
from dlbench.suites.levers import LeverChange


def tuning_waterfall_plot(
    changes: Sequence[LeverChange], shipped: float, title: str, goal: str, unit: str, records: tuple[str, ...] = ()
) -> Plot:
    """One bar per change, from the figure before it to the one after it, between the default and the tuned one.

    Args:
        shipped: figure of the default setting.
        title: such as "resnet50, training"; the first word is a network.
        unit: of a sample, such as img.
    """
    words = f"Gain of each change, from the default setting to the best one found: {title}."
    if not changes:
        return Plot("waterfall", f"{words} No other setting was better.", records=records)
    tuned = changes[-1].after
    names = ["default", *(f"+ {change.text}" for change in changes), "tuned"]
    spans = [(0.0, shipped), *((change.before, change.after) for change in changes), (0.0, tuned)]
    figure = look.new_figure(figure_height(len(names), 0.34))
    axes = figure.subplots()
    for y, (before, after) in enumerate(spans):
        whole = y in (0, len(spans) - 1)
        colour = look.GREY if whole else look.GREEN if after >= before else look.VERMILION
        axes.barh(y, after - before, left=before, height=0.6, color=colour)
        text = units.rate_text(after, "") if whole else f"x {units.number_text(after / before, 3)}"
        axes.annotate(text, (max(before, after), y), (4, 0), textcoords="offset points", **SMALL_TEXT_STYLE)
    set_row_labels(axes, [look.fit_text_for_figure(name, 40) for name in names])
    axes.set_xlim(0, 1.2 * max(after for _, after in spans))
    axes.set_xlabel(tuning_goal_heading(goal, unit))
    model, _, rest = title.partition(",")
    axes.set_title(f"{look.fit_text_for_figure(network_title(model), 26)},{rest}" if rest else network_title(model))
    return Plot("waterfall", f"{words} In total x {units.number_text(tuned / shipped, 3)}.", figure, records=records)
