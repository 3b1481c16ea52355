"""That tables of other programs are read as these wrote them, or refused with the reason."""

import codecs
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from caffe_clr.errors import ClrError
from caffe_clr.method import tables
from caffe_clr.method.curves import read as suggest
from caffe_clr.runs.history import Row

ROWS: list[Row] = [
    {"iteration": 20 * at, "lr": (at + 1) / 1000, "loss": loss}  # which is lowest at 0.021
    for at, loss in enumerate(0.5 + max(0, 10 - at) / 5 + abs(at - 20) / 50 for at in range(50))
]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str | bytes, name: str = "a.csv") -> Path:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    return write


def lines(rows: Iterable[Row] = ROWS, delimiter: str = ",") -> str:
    text = [delimiter.join(("iteration", "lr", "loss"))]
    text += [delimiter.join(f"{value:g}" for value in row.values()) for row in rows]
    return "\n".join(text) + "\n"


def same(rows: list[Row], others: list[Row]) -> bool:
    pairs = zip(rows, others, strict=True)
    return all(row == pytest.approx(other) and row.keys() == other.keys() for row, other in pairs)


@pytest.mark.parametrize(
    "content",
    [
        lines().encode(),
        lines().replace("\n", "\r\n").encode("utf-8-sig"),
        lines().rstrip("\n").encode(),
        lines(delimiter=";").encode(),
        lines(delimiter=";").replace(".", ",").encode(),
        ("sep=;\r\n" + lines(delimiter=";").replace(".", ",")).encode("utf-8-sig"),
        lines(delimiter="\t").encode(),
        lines(delimiter="\t").replace(".", ",").encode(),
        codecs.BOM_UTF16_LE + lines(delimiter="\t").replace("\n", "\r\n").encode("utf-16-le"),
        codecs.BOM_UTF16_BE + lines(delimiter="\t").encode("utf-16-be"),
        lines().replace(",", '","').replace("\n", '"\n"').strip('"').join('""').encode(),
        (lines() + ",,\n\n").encode(),
        (lines() + "1000,0.0").encode(),  # it is still being written
    ],
)
def test_a_spreadsheet_is_read_in_any_dialect(content: bytes, write: Callable[..., Path]) -> None:
    path = write(content)
    assert same(tables.read(path).rows, ROWS)
    assert suggest(path).suggestions.max_lr.rate == pytest.approx(0.0105, abs=0.0015)


@pytest.mark.parametrize(
    "name",
    [
        *("lr", "LR", "LearningRate", "learning_rate", "Learning rate", " lr "),
        *("lr-SGD", "lr-Adam/pg1", "run 1 - lr", "train/learning_rate"),
    ],
)
@pytest.mark.parametrize("file", ["a.csv", "a.CSV", "a.tsv", "a.txt", "history"])
def test_rates_are_found_by_name(name: str, file: str, write: Callable[..., Path]) -> None:
    path = write(lines().replace("lr", name), file)
    assert tables.is_table(path)
    assert same(tables.read(path).rows, ROWS)


def test_a_log_is_no_table(write: Callable[..., Path]) -> None:
    stamp = "I0627 13:02:47.000000   100 solver.cpp:237] "
    for text in (f"{stamp}Iteration 0, lr = 0.1\n", "", "lr\n", "a,b\n1,2\n", "1," * 99_999):
        assert not tables.is_table(write(text, "a.log"))


def test_columns_that_hold_no_numbers_are_left_out(write: Callable[..., Path]) -> None:
    path = write(
        "run,,lr,time,loss,a - loss__MIN,a - loss__MAX,\n"
        "x,0,0.1,00:01,2,1,3,\n"
        "x,1,0.2,00:02,,1,3,\n"
    )
    assert tables.read(path).rows == [{"lr": 0.1, "loss": 2}, {"lr": 0.2}]


def test_what_cannot_be_read_is_told(write: Callable[..., Path]) -> None:
    for text, message in (
        (lines().replace("lr", "rate"), "has no column lr; rename the column with the rates to lr"),
        (
            lines().replace("lr", "lr-a").replace("loss", "lr-b"),
            "several columns may be the rate: lr-a, lr-b; rename",
        ),
        ("", "has no column lr"),
        (lines() + "1,200,0.3,1\n", "1 of its lines cannot be read, such as 1 200 0.3 1; separate"),
        (lines() + "low,0.3,1\n", "1 of its lines cannot be read, such as low 0.3 1; separate"),
        (
            lines(delimiter=";") + "1,200;0.3;1\n",
            "such as 1,200 0.3 1; separate columns with commas",
        ),
        ("lr,loss\nlow,2\nhigh,3\n", "is not a CSV of numbers: 2 of its lines cannot be read"),
        ("lr,loss\n" + "1" * 200_000 + ",2\n", "is not a CSV: field larger than field limit"),
    ):
        with pytest.raises(ClrError, match=r"a\.csv: ") as raised:
            tables.read(write(text))
        assert message in str(raised.value)
    assert "lr" in tables.read(write(lines().replace("loss", "lr-b"))).rows[0]


PARSE_LOG = "NumIters,Seconds,LearningRate,accuracy,loss\n" + "".join(
    f"{row['iteration']:.1f},{at}.5,{row['lr'] if at else math.nan},{at / 50},{row['loss']}\n"
    for at, row in enumerate(ROWS)
)


@pytest.mark.parametrize("file", ["caffe.log.train", "caffe.log.test", "a.test.csv"])
def test_a_table_of_parse_log_is_read_with_a_warning(file: str, write: Callable[..., Path]) -> None:
    path, warnings = write(PARSE_LOG, file), list[str]()
    rows = tables.read(path).rows
    assert list(rows[1]) == ["iteration", "seconds", "lr", "accuracy", "loss"]
    found = suggest(path, on_warning=warnings.append)
    assert warnings == [
        f"{path}: parse_log.py writes the rate of the previous display into each row; give"
        " the log itself"
    ]
    assert len(found.rows) == 49
    # the losses of a table of tests are no training losses
    assert len(found.losses) == (49 if "train" in file else 0)
    assert ("loss" in found.rows[0]) == ("test" in file)


@pytest.mark.parametrize("nothing", ["NA", "N/A", "null", "None", "-"])
def test_what_stands_for_no_value_is_none(nothing: str, write: Callable[..., Path]) -> None:
    text = "lr,loss,val_accuracy\n" + "".join(
        f"{n / 100},{2 - n / 50},{n / 50 if n % 5 == 0 else nothing}\n" for n in range(50)
    )
    rows = tables.read(write(text)).rows
    assert [row["loss"] for row in rows] == [2 - n / 50 for n in range(50)]
    assert [row["lr"] for row in rows if "val_accuracy" in row] == [
        n / 100 for n in range(0, 50, 5)
    ]
