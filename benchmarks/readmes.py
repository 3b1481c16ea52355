"""Writes the tables of the READMEs in models/ from paper.toml and the recorded runs."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import figures, tables
from caffe_clr.experiments import paper
from caffe_clr.experiments.paper import Result, Row, Table
from caffe_clr.method import comparison
from caffe_clr.runs import run_folder

_CLAIMS = "claims"


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
    numbers = Counter(_number(table) for table in found_tables.values())
    for name, table in found_tables.items():
        if name == "digits":
            put(name, table.folder / "README.md", _compared(table.folder))
            continue
        results = {row.name: paper.recorded(row) for row in table.rows.values()}
        put(name, table.folder / "README.md", _rows(table, results))
        for claim in table.claims:
            sentence, *cells = paper.claim_cells(table, claim, results)
            evidence = f"[{table.folder.name}]({table.folder.name}/README.md)"
            number = _number(table)
            told = number if numbers[number] == 1 else table.title.replace(":", ",")
            claims.append([f"{told}: {sentence}", *cells, evidence])
    put(_CLAIMS, models / "README.md", _markdown([*paper.CLAIM_HEADINGS, "evidence"], claims))
    return found


def _number(table: Table) -> str:
    return table.title.partition(":")[0]


def _rows(table: Table, results: Mapping[str, Mapping[int, Result]]) -> str:
    name, *headings = paper.HEADINGS
    lines = []
    for row in table.rows.values():
        found = results[row.name]
        _, *cells = paper.row_cells(row, found)
        solvers = " ".join(map(run_folder.solver_name, row.solvers))
        lines.append([row.about or row.name, *cells, _by_seed(row, found, table.folder), solvers])
    return _markdown([name, *headings, "by seed", "solver files"], lines)


def _compared(folder: Path) -> str:
    """The table of `compare`, of the digits' figure."""
    _, lines = figures.FIGURES[folder.name, "1cycle"]
    compared = comparison.table([figures.entry(line, folder) for line in lines])
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
        f"[{paper.shown(result.final)}]({row.recorded[seed - 1].relative_to(folder)})"
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
