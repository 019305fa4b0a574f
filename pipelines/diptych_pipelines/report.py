"""``diptych DOMAIN report``: a run on one page, in one file that loads nothing from anywhere."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diptych.data.atomic import write_text
from diptych.errors import UserError
from diptych.metrics_file import read_metrics
from diptych_pipelines.commands import Call
from diptych_pipelines.curves import curves

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2330; max-width: 68rem; margin: 2rem auto; }
body { padding: 0 1.5rem; } h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #d5dae2; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; } p { margin: .3rem 0; } .quiet { color: #5b6575; }
table { border-collapse: collapse; margin: .6rem 0 1rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #5b6575; padding: .2rem 0; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #e6e9ee; }
th, td { vertical-align: top; } td:first-child { white-space: nowrap; }
th { font-weight: 600; border-bottom-color: #9aa4b2; }
td.number, th.number { text-align: right; }
section { overflow-x: auto; } section ul { color: #5b6575; padding-left: 1.1rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1rem; }
.curves svg { width: 100%; height: auto; }
pre { background: #f4f6f8; padding: 1rem; overflow-x: auto; font-size: 13px; } summary { cursor: pointer; }
"""


def write(call: Call, run: str) -> None:
    """Writes report.html of a run and prints where it is.

    Args:
        run: The run folder.
    """
    print(write_report(Path(run)))


def write_report(run: Path) -> Path:
    """Writes the report of a run folder into it. Raises UserError for a folder that is no run."""
    if not all((run / name).is_file() for name in ("config.yaml", "data.json")):
        raise UserError(f"{run} is not the folder of a run that has begun: it lacks config.yaml or data.json")
    target = run / "report.html"
    write_text(target, page(run))
    return target


def page(run: Path) -> str:
    """The HTML of a report."""
    name = html.escape(run.resolve().name)
    finished = (run / "encoder.safetensors").is_file()
    state = "finished" if finished else "not finished: no encoder was exported yet"
    parts = [
        f"<h1>{name}</h1><p class=quiet>pretraining run, {state}</p>",
        *_data(run),
        *_training(run),
        *_evaluations(run),
        *_settings(run),
    ]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def _data(run: Path) -> Iterator[str]:
    facts = json.loads((run / "data.json").read_text(encoding="utf-8"))
    yield "<h2>Data</h2>"
    order = [name for name in ("train", "validation", "test") if name in facts["splits"]]
    counts = list(facts["splits"][order[0]]) if order else []
    yield table(
        ("split", *counts), [(name, *(facts["splits"][name][each] for each in counts)) for name in order]
    )
    rows = [*facts["summary"].items(), ("files", facts["files"]), ("digest of the files", facts["digest"])]
    yield table((), rows)
    kinds = _quarantine_kinds(run)
    total = facts["quarantined"]
    yield f"<h3>Quarantine</h3><p>Files that were set aside: {total}</p>"
    if kinds:
        yield table(("reason", "files"), kinds.most_common())


def _quarantine_kinds(run: Path) -> Counter[str]:
    path = run / "quarantine.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return Counter(str(json.loads(line)["reason"]).partition(":")[0] for line in lines)


def _training(run: Path) -> Iterator[str]:
    yield "<h2>Training</h2>"
    path = run / "metrics.csv"
    rows = read_metrics(path) if path.is_file() else []
    if not rows:
        yield "<p>Nothing was measured yet.</p>"
        return
    last = int(max(row["step"] for row in rows))
    yield f"<p>{last} steps. Each point of a loss is the mean since the point before.</p>"
    yield f'<div class="curves">{"".join(curves(rows))}</div>'


def _evaluations(run: Path) -> Iterator[str]:
    yield "<h2>Evaluations</h2>"
    fragments = sorted((run / "evaluations").glob("*.html"), key=lambda path: path.stat().st_mtime)
    if not fragments:
        yield "<p>None yet: diptych DOMAIN evaluate ... --run RUN adds one.</p>"
    for path in fragments:
        yield path.read_text(encoding="utf-8")


def _settings(run: Path) -> Iterator[str]:
    config = html.escape((run / "config.yaml").read_text(encoding="utf-8"))
    yield f"<h2>Settings</h2><details open><summary>config.yaml</summary><pre>{config}</pre></details>"
    path = run / "environment.json"
    if path.is_file():
        environment = json.loads(path.read_text(encoding="utf-8"))
        yield "<h2>Environment</h2>"
        yield table((), list(_flat(environment)))


def _flat(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from ((inner, str(each)) for inner, each in value.items())
        else:
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An HTML table; numbers stand to the right, text is escaped."""
    cells = "".join(f"<th{_place(rows, place)}>{html.escape(each)}</th>" for place, each in enumerate(header))
    head = f"<thead><tr>{cells}</tr></thead>" if header else ""
    body = "".join(f"<tr>{_cells(rows, row)}</tr>" for row in rows)
    return f"<section><table>{head}<tbody>{body}</tbody></table></section>"


def _cells(rows: Sequence[Sequence[Any]], row: Sequence[Any]) -> str:
    return "".join(
        f"<td{_place(rows, place)}>{html.escape(str(each))}</td>" for place, each in enumerate(row)
    )


def _place(rows: Sequence[Sequence[Any]], place: int) -> str:
    numeric = bool(rows) and all(isinstance(row[place], int | float) for row in rows)
    return ' class="number"' if numeric else ""
