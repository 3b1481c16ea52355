"""What results show of themselves in a notebook, and the example notebook."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient
from test_plots import LINEAR, entry, ranged, swept, valley

from caffe_clr.caffe_log import reader
from caffe_clr.errors import ClrError
from caffe_clr.harness.compilation import Tree
from caffe_clr.method import comparison, stepsize
from caffe_clr.method.comparison import Options, compare
from caffe_clr.method.range_test import range_test
from caffe_clr.method.results import Comparison
from caffe_clr.method.schedule import schedule
from caffe_clr.runs import notebook, run_folder, training
from caffe_clr.runs.history import History

ROOT = Path(__file__).resolve().parent.parent
LISTED = subprocess.run(
    ["git", "ls-files", "*.ipynb"], cwd=ROOT, capture_output=True, text=True, check=True
)
NOTEBOOKS = LISTED.stdout.split()
EXAMPLE = "models/digits/digits.ipynb"
HISTORY = History(
    [{"iteration": i, "lr": 0.1, "loss": 2 - i / 50} for i in range(0, 40, 10)],
    [{"iteration": i, "lr": 0.1, "accuracy": i / 50} for i in (0, 20, 40)],
)
COMPARISON = Comparison([entry("a<b", seeds=2), entry("steps", seeds=2, top=0.6)])
RANGE_TEST = ranged(LINEAR, valley(LINEAR, 0.01))
RESULTS: list[Any] = [HISTORY, COMPARISON, RANGE_TEST]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_a_result_shows_a_table_and_a_plot(result: Any) -> None:
    shown = result._repr_html_()
    assert shown.index("<table>") < shown.index('<img src="data:image/png;base64,')
    assert "a<b" not in shown


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_a_plot_is_a_figure_that_a_notebook_shows(result: Any) -> None:
    figure = result.plot("title")
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    assert "title" in figure.axes[0].get_title()


def test_reprs_are_short() -> None:
    assert repr(HISTORY) == "History(4 train rows, 3 test rows, up to iteration 40)"
    assert repr(History()) == "History(0 train rows, 0 test rows)"
    assert repr(COMPARISON[0]) == "Entry('a<b', 2 runs)"
    assert repr(entry("b", diverged=(1,))) == "Entry('b', 1 run, 1 diverged)"
    assert repr(COMPARISON) == "Comparison(a<b: 82.03 ± 1.40, steps: 62.26 ± 1.40)"
    assert repr(RANGE_TEST) == "RangeTest(base_lr=0.00077, max_lr=0.0046)"
    rising = ranged(LINEAR, 3 - 100 * LINEAR)
    assert repr(rising) == "RangeTest(base_lr=none, max_lr=none)"


def test_nothing_recorded_is_shown_as_that() -> None:
    assert History()._repr_html_() == "History(0 train rows, 0 test rows)"
    assert Comparison()._repr_html_() == "Comparison()"
    with pytest.raises(ClrError, match="nothing is recorded yet"):
        History().plot()


def test_a_history_shows_its_last_tests() -> None:
    shown = HISTORY._repr_html_()
    assert "<th>iteration</th><th>lr</th><th>accuracy</th>" in shown
    assert "<td>40</td><td>0.1</td><td>0.8</td>" in shown
    assert "the last 3 of 3 test rows" in shown
    displays = History(HISTORY.train * 2)._repr_html_()
    assert "the last 5 of 8 train rows" in displays


def test_a_comparison_shows_the_table_of_the_command_line() -> None:
    shown = COMPARISON._repr_html_()
    assert "<caption>Test accuracy (%), 2 seeds</caption>" in shown
    assert "<td>a&lt;b</td><td>400</td><td>82.03 ± 1.40</td>" in shown
    assert "two tests in a row" in shown


def test_a_range_test_shows_why_it_suggests_its_bounds() -> None:
    shown = RANGE_TEST._repr_html_()
    assert "<td>max_lr</td><td>0.0046</td><td>0.5 of 0.0092, where the training loss" in shown


def test_frames_have_a_row_for_each_record() -> None:
    frame = HISTORY.to_frame()
    assert list(frame.iteration) == [0, 0, 10, 20, 20, 30, 40]
    assert list(frame[frame.phase == "test"].accuracy) == [0, 0.4, 0.8]
    table = COMPARISON.to_frame()
    assert list(table.name) == ["a<b", "steps"]
    assert table.final_mean[0] == pytest.approx(0.8203, abs=1e-4)
    assert list(COMPARISON[0].to_frame()) == ["iteration", "lr", "mean", "low", "high"]
    assert list(swept().to_frame()) == ["iteration", "lr", "loss"]


@pytest.mark.parametrize("result", [*RESULTS, COMPARISON[0]])
def test_a_frame_needs_pandas(result: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ClrError, match="to_frame needs pandas: pip install pandas"):
        result.to_frame()


def test_outside_of_a_notebook_no_bar_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with notebook.Bars() as bars:
        bars.show({"training": (1, 2)})
    assert capsys.readouterr() == ("", "")


def test_paths_may_be_strings(
    write_solver: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_solver(max_iter=40)
    write_solver("other", max_iter=40, lr_policy="fixed")
    history = training.train("solver.prototxt", "run")
    assert run_folder.read_history("run") == history
    again = training.train(["solver.prototxt"])
    assert [row["loss"] for row in again.train] == [row["loss"] for row in history.train]
    compared = compare(["solver.prototxt", "other.prototxt"], options=Options(seeds=1))
    assert [line.name for line in compared.table()] == ["solver", "other"]
    assert comparison.default_folder([Path("solver.prototxt"), Path("other.prototxt")]).is_dir()
    assert compare("solver.prototxt", "one", Options(seeds=1)).table() == compared.table()[:1]
    found = range_test("solver.prototxt")
    assert found.rows
    assert len(list(Path("runs").glob("solver-*"))) == 2  # of the training, and of the test
    assert schedule("solver.prototxt") == schedule([Path("solver.prototxt")])
    assert stepsize.stepsize("solver.prototxt", images=80)["epoch"] == 10


def test_a_log_shows_itself_as_a_run_does() -> None:
    log = reader.Log(HISTORY.train, HISTORY.test)
    assert repr(log) == "Log(4 train rows, 3 test rows, up to iteration 40)"
    assert log._repr_html_() == HISTORY._repr_html_()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_output_is_kept(name: str) -> None:
    content = json.loads((ROOT / name).read_text())
    assert sorted(content["metadata"]) == ["kernelspec", "language_info"]
    for number, cell in enumerate(content["cells"], 1):
        assert cell["id"] == f"cell-{number}"
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


def test_the_example_runs(tree: Tree, tmp_path: Path) -> None:
    folder = tmp_path / "models/digits"
    folder.mkdir(parents=True)
    for file in (ROOT / "models/digits").glob("*.*"):
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    example = nbformat.read(ROOT / EXAMPLE, as_version=4)  # type: ignore[no-untyped-call]
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(example, timeout=600, kernel_name="python3", resources=place).execute()
    shown = [output.get("data", {}) for cell in example.cells for output in cell.get("outputs", [])]
    texts = [data.get("text/plain", "") for data in shown]
    pages = "".join(data.get("text/html", "") for data in shown)
    for name in ("RangeTest", "History", "Comparison"):
        assert any(text.startswith(f"{name}(") for text in texts)
    assert "True" in texts  # the rates are those of the reference
    assert pages.count("<progress") == 4  # the range test, the training, and two solvers
    assert pages.count("<img") == 3
    assert sum("image/png" in data for data in shown) == 2
    assert (tmp_path / "runs/digits.pdf").is_file()
