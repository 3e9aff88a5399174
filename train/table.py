"""python -m train table RUNS...: the reports of runs on pickles, over their seeds, beside the papers' figures: Markdown, LaTeX, CSV and curves.

Runs of one method, data set, split, protocol and way of reading words are one row: mean and deviation (n - 1) over training seeds. Figures are
never mixed across any of these, and every table says what its rows were measured by.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

import numpy as np

from msademo.checkpoint import write_atomically
from msademo.errors import InputError
from train.papers import ERRATA, MEASURED, SOURCES, TITLES, printed, printed_by_rate
from train.plots import draw_rates

SHARES = ("acc", "f1")                                    # printed in per cent
NAMES = {"pglh": "PGLH", "baseline": "mean-pool MLP", "pgmf-teacher": "PGMF-Teacher", "pgmf-student": "PGMF-Student"}
TEN = [i / 10 for i in range(10)]


@dataclass(frozen=True)
class Group:
    """Reports that differ in their training seed alone."""

    reports: tuple[dict, ...]

    @property
    def first(self) -> dict:
        return self.reports[0]

    @property
    def title(self) -> str:
        """What it was measured on: a data set, or a folder by its name."""
        return self.first.get("folder") or self.first["dataset"].upper()

    @property
    def name(self) -> str:
        r = self.first
        seeds = f"{len(self.reports)} seed{'s' if len(self.reports) > 1 else ''}"
        return f"ours: {NAMES.get(r['method'], r['method'])} ({r['split']}, {r['protocol']}, words by {Path(r['text']).name}, {seeds})"

    def figures(self, pick) -> dict[str, tuple[float, float | None]]:
        """Per metric mean and deviation over seeds (None for one seed) of pick(report), shares in per cent."""
        return spread([pick(report) for report in self.reports], MEASURED[self.first["dataset"]])


def spread(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> dict[str, tuple[float, float | None]]:
    """Per name mean and deviation (None for one row) over rows, shares in per cent."""
    found = {}
    for name in names:
        values = np.array([row[name] for row in rows]) * (100 if name.startswith(SHARES) else 1)
        found[name] = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None
    return found


def read_reports(paths: Sequence[Path]) -> list[dict]:
    """The reports at `paths`: files, or folders in which all report*.json are taken."""
    files = [file for path in paths for file in (sorted(path.rglob("report*.json")) if path.is_dir() else [path])]
    if not files:
        raise InputError(f"There is no report*.json in {', '.join(map(str, paths))}; train with --config and --pickle first.")
    reports = []
    for file in files:
        try:
            report = json.loads(file.read_text(encoding="utf-8"))
            if report["dataset"] not in MEASURED or not report["rates"]:
                raise KeyError("rates")
            for row in (*report["rates"], report["average"]):
                [float(row[name]) for name in MEASURED[report["dataset"]]]
            for key in ("method", "split", "protocol", "text", "training_seed", "about", "floor", "absent"):
                report[key]
        except FileNotFoundError as error:
            raise InputError(f"There is no file {file}; give report.json files or folders of runs.") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} is no report of a run on a pickle; `python -m train evaluate CHECKPOINT --pickle FILE --json {file.name}` writes one.") from error
        reports.append(report)
    return reports


def group(reports: Sequence[dict]) -> list[Group]:
    """Reports by all that makes them comparable. Two of one seed in a group are refused: they would count twice."""
    groups: dict[tuple, list[dict]] = {}
    for report in reports:
        key = (report["dataset"], report.get("folder"), report["method"], report["split"], report["protocol"], report["text"], report["about"], tuple(row["rate"] for row in report["rates"]))
        groups.setdefault(key, []).append(report)
    for key, rows in groups.items():
        seeds = [row["training_seed"] for row in rows]
        if len(set(seeds)) != len(seeds):
            raise InputError(f"There are two reports of {key[2]} on {key[1] or key[0]} with one training seed ({max(seeds, key=seeds.count)}); give each run once.")
    return [Group(tuple(sorted(rows, key=lambda row: row["training_seed"]))) for rows in groups.values()]


def shown(name: str, mean: float | None, deviation: float | None = None) -> str:
    """A figure as it is printed: per cent with two digits, errors and correlations with three."""
    if mean is None or not np.isfinite(mean):
        return "-"
    digits = 2 if name.startswith(SHARES) else 3
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if deviation is not None else "")


@dataclass(frozen=True)
class Table:
    """A caption, column titles, rows of cells, and notes under it."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        line = lambda cells: "| " + " | ".join(cells) + " |"
        body = [f"### {self.caption}", "", line(self.columns), line(["---"] * len(self.columns)), *map(line, self.rows), ""]
        return "\n".join([*body, *(f"- {note}" for note in self.notes), *([""] if self.notes else [])])

    def latex(self) -> str:
        def escape(text: str) -> str:
            for plain, written in (("\\", r"\textbackslash "), ("&", r"\&"), ("%", r"\%"), ("_", r"\_"), ("#", r"\#"), ("±", r"$\pm$")):
                text = text.replace(plain, written)
            return text
        line = lambda cells: " & ".join(map(escape, cells)) + r" \\"
        return "\n".join([r"\begin{table}", r"\centering", rf"\caption{{{escape(self.caption)}}}", rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}", r"\hline",
                          line(self.columns), r"\hline", *map(line, self.rows), r"\hline", r"\end{tabular}", *(rf"\par\footnotesize {escape(note)}" for note in self.notes), r"\end{table}", ""])


def make_tables(groups: Sequence[Group]) -> list[Table]:
    """Per data set: means over the ten rates and complete clips, each beside the papers' rows; every rate; whole modalities absent."""
    tables = []
    for title in dict.fromkeys(g.title for g in groups):
        own = [g for g in groups if g.title == title]
        dataset = own[0].first["dataset"]
        columns = MEASURED[dataset]
        titles, about = tuple(TITLES[name] for name in columns), [f"{g.name}: {g.first['about']}." for g in own]
        cells = lambda name, figures: (name, *(shown(c, *figures.get(c, (None, None))) for c in columns))
        rates = lambda g: [row["rate"] for row in g.first["rates"]]
        whole = [g for g in own if rates(g) == TEN]
        clean = [g for g in own if 0.0 in rates(g)]
        for kind, mine, pick in (("over rates", whole, lambda r: r["average"]), ("complete", clean, lambda r: next(row for row in r["rates"] if row["rate"] == 0))):
            if not mine:
                continue
            rows = [cells(row.name, {c: (v, None) for c, v in row.figures.items()}) for row in printed(kind, dataset)]
            rows += [cells(g.name, g.figures(pick)) for g in mine]
            floor = mine[0].first["floor"]
            rows.append(cells("a constant, at best", {c: (floor[c] * (100 if c.startswith(SHARES) else 1), None) for c in columns if c in floor}))
            what = "means over r = 0 ... 0.9" if kind == "over rates" else "nothing missing"
            notes = (f"Rows without 'ours' as printed: {SOURCES[kind][dataset]}.", *ERRATA[kind, dataset]) if dataset in SOURCES[kind] else ()
            tables.append(Table(f"{title}, {what}", ("model", *titles), tuple(rows), (*notes, *about)))
        rows = []
        theirs = {float(row.name): row for row in printed_by_rate(dataset)}
        for rate in sorted({rate for g in own for rate in rates(g)}):
            if rate in theirs:
                rows.append((f"{rate:g}", "PGLH, as printed", *(shown(c, theirs[rate].figures[c]) for c in columns)))
            rows += [(f"{rate:g}", *cells(g.name, g.figures(lambda r, rate=rate: next(row for row in r["rates"] if row["rate"] == rate)))) for g in own if rate in rates(g)]
        tables.append(Table(f"{title}, by missing rate", ("r", "model", *titles), tuple(rows), tuple(about)))
        rows = [(case, *cells(g.name, g.figures(lambda r, case=case: r["absent"][case]))) for case in own[0].first["absent"] for g in own if case in g.first["absent"]]
        tables.append(Table(f"{title}, whole modalities absent", ("absent", "model", *titles), tuple(rows), tuple(about)))
    return tables


def as_csv(tables: Sequence[Table]) -> str:
    """One row a cell that holds a figure: table, row, column, mean, deviation."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("table", "row", "column", "mean", "deviation"))
    for table in tables:
        labels = sum(title in ("r", "absent", "model") for title in table.columns)
        for row in table.rows:
            for title, cell in zip(table.columns[labels:], row[labels:]):
                if cell != "-":
                    mean, _, deviation = cell.partition(" ± ")
                    writer.writerow((table.caption, " ".join(row[:labels]), title, mean, deviation))
    return out.getvalue()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or report.json files")
    parser.add_argument("--out", type=Path, default=Path("runs/tables"), help="folder for table.md, table.tex, table.csv and the curves")


def run(args: argparse.Namespace) -> None:
    groups = group(read_reports(args.runs))
    tables = make_tables(groups)
    for name, text in (("table.md", "\n".join(table.markdown() for table in tables)), ("table.tex", "\n".join(table.latex() for table in tables)), ("table.csv", as_csv(tables))):
        write_atomically(args.out / name, text.encode())
    print("\n".join(table.markdown() for table in tables))
    for title in dict.fromkeys(g.title for g in groups):
        mine = [g for g in groups if g.title == title]
        dataset = mine[0].first["dataset"]
        for metric in ("mae", "acc2" if "acc2" in MEASURED[dataset] else "acc2_non0"):
            draw_rates(args.out / f"{title.lower()}-{metric}.png", mine, dataset, metric)
    print(f"wrote {args.out}: table.md, table.tex, table.csv and curves")
