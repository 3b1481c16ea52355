"""Writes the tables of the READMEs in models/ from paper.toml and the recorded runs."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import tables
from caffe_clr.experiments import paper, paper_figures, verdicts
from caffe_clr.experiments.paper import Row, Table
from caffe_clr.experiments.paper_figures import Tests
from caffe_clr.experiments.verdicts import Result, Results
from caffe_clr.method import comparison, curves
from caffe_clr.runs import run_folder

_CLAIMS = "claims"
_COMPARED = "digits"  # has the table of `compare`


def write(root: Path) -> None:
    """Write the tables into the READMEs of the checkout at `root`, between their markers."""
    for file, text in texts(root).items():
        if text != file.read_text():
            file.write_text(text)
            tables.console.print(f"Tables: {file}", soft_wrap=True)


def texts(root: Path) -> dict[Path, str]:
    """The READMEs with the tables as the recorded runs give them."""
    models = root / "models"
    found: dict[Path, str] = {}

    def put(name: str, file: Path, text: str) -> None:
        content = found.get(file) or file.read_text()
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
        pattern = re.compile(rf"(?<={re.escape(begin)}).*?(?={re.escape(end)})", re.DOTALL)
        if not pattern.search(content):
            raise ValueError(f"{file} has no lines {begin.strip()} and {end.strip()}")
        found[file] = pattern.sub(lambda _: text, content)

    claims = []
    found_tables = paper.tables(models)
    numbers = Counter(map(_number, found_tables.values()))
    for name, table in found_tables.items():
        readme = table.folder / "README.md"
        tests = paper.recorded(table.rows.values())
        trained = [row for row in table.rows.values() if not row.sweep]
        results = {row.name: verdicts.results(row, tests[row.name]) for row in trained}
        for row in table.rows.values():
            if row.sweep:
                put(f"{name}-bounds", readme, _bounds(row))
        if name == _COMPARED:
            put(name, readme, _compared(table, tests))
            continue
        if any(row.path == f"{name}/{row.name}" for row in trained):
            put(name, readme, _rows(table, trained, results))
        for claim in table.claims:
            sentence, *cells = verdicts.claim_cells(claim, results)
            evidence = f"[{table.folder.name}]({table.folder.name}/README.md)"
            number = _number(table)
            told = number if numbers[number] == 1 else table.title.replace(":", ",")
            claims.append([f"{told}: {sentence}", *cells, evidence])
    put(_CLAIMS, models / "README.md", _markdown([*verdicts.CLAIM_HEADINGS, "evidence"], claims))
    return found


def _number(table: Table) -> str:
    return table.title.partition(":")[0]


def _rows(table: Table, rows: Sequence[Row], results: Results) -> str:
    name, *headings = (heading.replace("\n", " ") for heading in verdicts.HEADINGS)
    lines = []
    for row in rows:
        found = results[row.name]
        _, *cells = verdicts.row_cells(row, found)
        solvers = " ".join(map(run_folder.solver_name, row.solvers))
        lines.append([row.about or row.name, *cells, _by_seed(row, found, table.folder), solvers])
    return _markdown([name, *headings, "by seed", "solver files"], lines)


def _bounds(row: Row) -> str:
    suggestions = [curves.read(file).suggestions for file in row.recorded]
    return _markdown(verdicts.BOUND_HEADINGS, verdicts.bound_cells(row, suggestions))


def _compared(table: Table, tests: Tests) -> str:
    """The table of `compare`, of a figure."""
    figure = next(figure for figure in table.figures if figure.name == "1cycle")
    compared = comparison.table(paper_figures.entries(figure, tests))
    rows = []
    for line in compared:
        cells = [
            "{:.2f} ± {:.2f}".format(*(100 * number for number in values)) if values else ""
            for values in (line.final, line.best)
        ]
        rows.append([line.name, *cells, "never" if line.reached is None else f"{line.reached:,}"])
    return _markdown(["solver", "final", "best", "reached"], rows)


def _by_seed(row: Row, results: Mapping[int, Result], folder: Path) -> str:
    return ", ".join(
        f"[{verdicts.shown(result.final)}]({row.recorded[seed - 1].relative_to(folder)})"
        for seed, result in results.items()
    )


def _markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table without the columns that are empty in each line."""
    kept = [
        number
        for number, _ in enumerate(headings)
        if number == 0 or any(line[number] for line in lines)
    ]
    rule = ["---", *("---:" for _ in kept[1:])]
    rows = [[headings[number] for number in kept], rule]
    rows += [[line[number] for number in kept] for line in lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
