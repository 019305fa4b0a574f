"""Curves of a run's metrics as inline SVG, one panel for each group of names that belong together."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

COLOURS = ("#2f5d8c", "#c2571a", "#3d7a4e", "#8a4f9e", "#7a6a2f", "#555f6d")
TITLES = {
    "loss": "loss",
    "probe": "online probe (validation data)",
    "health/alignment": "alignment: distance of pairs (lower is closer)",
    "health/uniformity": "uniformity (lower is more even)",
    "health/rank": "effective rank",
    "health/dead": "share of dead dimensions",
    "health/spread": "spread",
    "rate": "learning rate",
    "gradient": "gradient norm",
    "alarm": "signs of collapse",
}
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "diptych", "font.family": "sans-serif", "font.size": 9}
TOGETHER = {"health/rank_centred": "health/rank"}  # drawn in the panel of another

Rows = Sequence[Mapping[str, float]]


def curves(rows: Rows) -> Iterator[str]:
    """One SVG element per panel, in the order of the report; over steps."""
    names = list(dict.fromkeys(name for row in rows for name in row if name not in ("step", "epoch")))
    panels: dict[str, list[str]] = {}
    for name in names:
        panels.setdefault(_panel(name), []).append(name)
    if len(panels.get("loss", ())) == 2:  # one term and the total of it
        panels["loss"].remove("loss/total")
    known = [title for title in TITLES if title in panels]
    for panel in [*known, *(each for each in panels if each not in TITLES)]:
        yield svg(rows, panels[panel], TITLES.get(panel, panel))


def svg(rows: Rows, names: Sequence[str], title: str) -> str:
    """One panel with a line for each name; a legend where there are several."""
    with rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "diptych", "font.family": "sans-serif", "font.size": 9}
    ):
        figure = Figure(figsize=(4.4, 2.7), layout="constrained")
        axes = figure.add_subplot()
        for place, name in enumerate(names):
            points = [(row["step"], row[name]) for row in rows if name in row]
            marker = "o" if len(points) < 25 else ""
            steps, values = zip(*points, strict=True)
            label = name.partition("/")[2] or name
            colour = COLOURS[place % len(COLOURS)]
            axes.plot(steps, values, color=colour, label=label, linewidth=1.4, marker=marker, markersize=3)
        if "health/dead" in names:
            axes.set_ylim(-0.02, 1.02)
        axes.set_title(title, loc="left", fontsize=9.5)
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e9ee", linewidth=0.8)
        if len(names) > 1:
            axes.legend(frameon=False, fontsize=8)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)


def _panel(name: str) -> str:
    name = TOGETHER.get(name, name)
    return name if name in TITLES else name.partition("/")[0]
