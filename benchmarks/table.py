"""The results as Markdown: python benchmarks/table.py [benchmarks/results/cpu.json]"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "cpu.json"
STEPS = ("mlp adam", "mlp sgd", "wide", "deep", "regularised")
Row = dict[str, Any]


def markdown(header: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])


def races(labels: list[str], rows: list[Row]) -> str:
    """gpunet's time and every ratio to it: of the minima, with the quartiles of the rounds in parentheses."""
    names = list(dict.fromkeys(name for row in rows for name in row["ratio"]))
    lines = []
    for row in rows:
        us = row["microseconds"]["gpunet"]
        cells = [ratio(row["ratio"][name]) if name in row["ratio"] else "" for name in names]
        lines.append([str(row[label]) for label in labels] + [f"{us['min']:,.0f} ({us['median']:,.0f})", *cells])
    return markdown([*labels, "gpunet, µs", *names], lines)


def by_peers(rows: list[Row]) -> list[list[Row]]:
    """Rows that compare the same contenders, one table each."""
    return [list(group) for _, group in groupby(rows, key=lambda row: list(row["ratio"]))]


def ratio(r: dict[str, float]) -> str:
    return f"{r['min']:.2f} ({r['q1']:.2f}–{r['q3']:.2f})"


def seconds(t: dict[str, float]) -> str:
    return f"{t['min']:.2f} ({t['median']:.2f})"


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Markdown by title, for the results that are there."""
    rows: dict[str, list[Row]] = {name: result["rows"] for name, result in results.items()}
    made = {}
    if steps := [row for name in STEPS for row in rows.get(name, [])]:
        made["One training step"] = races(["case", "optimizer", "batch"], steps)
    if "once" in rows:
        made["One training step, with scikit-learn and Thinc"] = races(["case", "optimizer", "batch"], rows["once"])
    if "inference" in rows:
        made["Inference"] = races(["batch"], rows["inference"])
    if "kernels" in rows:
        made["Single kernels"] = races(["kernel"], rows["kernels"])
    if "choices" in rows:
        made["Choices"] = "\n\n".join(races(["choice"], alike) for alike in by_peers(rows["choices"]))
    if "first step" in rows:
        lines = [[row["name"], seconds(row["cold"]), seconds(row["warm"])] for row in rows["first step"]]
        made["First step"] = markdown(["", "cold, s", "warm, s"], lines)
    if "import time" in rows:
        lines = [[row["name"], seconds(row)] for row in rows["import time"]]
        made["Import time"] = markdown(["import", "s"], lines)
    if "installed size" in rows:
        lines = [[row["name"], f"{row['megabytes']:.0f}"] for row in rows["installed size"]]
        made["Installed size"] = markdown(["", "MB"], lines)
    return made


def about(result: dict[str, Any]) -> str:
    """Machine, versions, date and threads."""
    machine, versions = result["machine"], ", ".join(f"{name} {v}" for name, v in result["versions"].items())
    used = {name: of["options"].get("threads") for name, of in result["results"].items()}
    threads = ", ".join(f"{name} {count}" for name, count in used.items() if count)
    return (
        f"{result['date'][:10]}, commit {result['commit']}, {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}; {versions}. Threads: {threads}."
    )


def main() -> None:
    result = json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else RESULTS).read_text())
    print(about(result))
    for title, table in tables(result["results"]).items():
        print(f"\n### {title}\n\n{table}")


if __name__ == "__main__":
    main()
