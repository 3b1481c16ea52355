"""Texts that are odd: read, or refused, as Caffe's own parser does."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffe_clr import prototxt
from caffe_clr.harness.compilation import Tree
from caffe_clr.prototxt import text_parser
from caffe_clr.prototxt.text_parser import TextError

NUMBERS = (
    *("1", "0", "-1", "- 1", "-\n1", "- # less\n1", "--1", "+1", "1 2", "", "(1)", "1/2", "$1"),
    *("010", "08", "00", "01.5", "0x10", "0X1F", "0x", "0x1g", "-0x10", "-010", "0x1.8p3"),
    *("0b100", "0o17", "300_000", "1_000.5", "0_1", "1l", "1u", "1e3", "1E3", "1e", "1e+", "1e1.5"),
    *("1.", "1.f", "1F", "1f", "0f", "1.5", ".5", "-.5", "-0", ".", "1..", "1.2.3", "1e5f"),
    *("1e400", "1e-400", "3.5e38", "1e39", "2147483647", "2147483648", "-2147483648"),
    *("-2147483649", "18446744073709551616", "inf", "-inf", "INF", "-Infinity", "inff", "NaN"),
    *("nanf", "true", "fast", "'1'", "1#c", "1;", "1,", "1;;", "1,,", "1'", "[1]", "[]"),
    *("\u0661", "1\u00a0", "{ }"),
)
BOOLEANS = (
    *("true", "True", "TRUE", "t", "T", "false", "False", "f", "1", "0", "2", "-1", "0x1", "01"),
    *("00", "yes", "'true'", "1.0"),
)
ENUMS = ("GPU", "gpu", "1", "0", "2", "-1", "- 1", "0x1", "01", "'GPU'", "1.0", "GPU CPU")
STRINGS = (
    *(
        "'a'",
        "\"a\" 'b'",
        '"a""b"',
        '"a"b',
        '"a',
        '"a\nb"',
        '"a\\\nb"',
        '"a" # c\n "b"',
        '"a", "b"',
    ),
    *('"a # b"', '"\u00e9"', '"a\tb"', '"a\x01b"', '"a\rb"', "''", "a", '["a"]', '"a" + "b"'),
    *("u'a'", "'''a'''", "\u201ca\u201d", '"\\', '"\\"', r'"\""', r'"\\"'),
    *(r'"\a\b\f\n\r\t\v\?\'"', r'"\1"', r'"\18"', r'"\1018"', r'"\777"', r'"\8"', r'"\0"'),
    *(r'"\x4"', r'"\x414"', r'"\x"', r'"\xg"', r'"\X41"', r'"\xe9"', r'"\u0041"', r'"\u004"'),
    *(r'"\U0001F600"', r'"\U0010FFFF"', r'"\U0000004"', r'"\uD83D\uDE00"', r'"\uD83D"'),
    *(r'"E:\Project\n.prototxt"', r'"C:\data"', r'"E:\\data"'),
)
TEXTS = (
    *("", " ", "# c", "#", "# c\nmax_iter: 1", "max_iter: # c\n1", "// c", "/* c */", "\v\f1"),
    *("max_iter:1base_lr:2", "max_iter:1,base_lr:2", "max_iter: 1;base_lr: 2", ";", "{ }", "}"),
    *("max_iter: 1,,base_lr: 2", ",max_iter: 1", "base_lr: 1.max_iter: 2", "net:'a'max_iter:1"),
    *("max_iter 1", "max_iter = 1", "max_iter:: 1", "max_iter\n:\n1", "max_iter: 1 max_iter: 1"),
    *("Max_iter: 1", "maxIter: 1", "unknown: 1", "4: 1", "'max_iter': 1", "[a.b]: 1", "max_iter"),
    *(
        "test_iter: [1,2]",
        "test_iter: [1 2]",
        "test_iter: [1,2,]",
        "test_iter: []",
        "test_iter: [,]",
    ),
    *("test_iter [1]", "test_iter: [1] test_iter: 2", "test_iter: [1;2]", "test_iter: [[1]]"),
    *(
        "net_param { name: 'a' }",
        "net_param: { name: 'a' }",
        "net_param < name: 'a' >",
        "net_param",
    ),
    *(
        "net_param { name: 'a' >",
        "net_param: 1",
        "net_param {",
        "net_param {;}",
        "net_param {} ; ,",
    ),
    *("net_param {} net_param {}", "net_param { layer [{ name: 'a' }, < name: 'b' >] }"),
    *("net_param { layer: [{}] layer { } }", "net_param [{}]", "net_param { layer: [] }"),
    *("train_state { stage: ['a', \"b\"] phase: 1 level: -1 }", "train_state { phase: 7 }"),
    *(
        "net_param { layer { clip_param { min: 1 max: 2 } } }",
        "net_param { layer { clip_param {} } }",
    ),
    *("net_param { layer { blobs { data: [1, .5f, -inf] double_data: 1e308 } } }",),
    *("state { }", "net_param { layer { blobs { shape { dim: [-9223372036854775808, 07] } } } }"),
    *("net_param { layer { blobs { shape { dim: 9223372036854775808 } } } }",),
    *("net_param { layer { convolution_param { num_output: -1 } } }",),
    *("\x01", "max_iter: 1\x00", "# a\x00b\nmax_iter: 1", "max_iter: 1\x1a", "max_iter: 1 ~"),
    *("\r\nmax_iter: 1\r\n", "# a\rmax_iter: 8\nmax_iter: 7", "\u00e9: 1", "# \u00e9\nmax_iter: 1"),
)
NOT_UTF8 = (
    b'net: "\xc4\xe3"',
    b"net: 'a\xff' '\\xe9'",
    b'net: "a" # \xe9',
    b"net: \xe9",
    b"\xe9:1",
)
CASES = (
    *(f"{field}: {number}" for number in NUMBERS for field in ("max_iter", "base_lr")),
    *(f"random_seed: {number}" for number in ("9223372036854775807", "9223372036854775808")),
    *(f"debug_info: {boolean}" for boolean in BOOLEANS),
    *(f"solver_mode: {value}" for value in ENUMS),
    *(f"net: {string}" for string in STRINGS),
    *(f"test_net: {string} max_iter: 3" for string in STRINGS[:8]),
    *TEXTS,
)


def caffes(tree: Tree, text: bytes, file: Path) -> bytes | None:
    """What Caffe makes of a solver, as text; None where it cannot read it."""
    file.write_bytes(text)
    program = tree.prefix / "bin" / "upgrade_solver_proto_text"
    done = subprocess.run([program, file, "/dev/stdout"], capture_output=True)
    return None if done.returncode else done.stdout


def ours(text: bytes) -> Any:
    try:
        return text_parser.parse(text, prototxt.caffe_pb2().SolverParameter())
    except TextError:
        return None


def test_what_caffe_reads_is_read_and_what_it_refuses_is_refused(
    tree: Tree, tmp_path: Path
) -> None:
    texts = [case.encode() for case in CASES] + list(NOT_UTF8)
    with ThreadPoolExecutor() as executor:
        files = (tmp_path / str(number) for number in range(len(texts)))
        theirs = list(executor.map(lambda text, file: caffes(tree, text, file), texts, files))
    assert 0 < theirs.count(None) < len(texts)
    for text, printed in zip(texts, theirs, strict=True):
        found = ours(text)
        assert (found is None) == (printed is None), text
        if printed is not None:
            assert found.SerializeToString() == ours(printed).SerializeToString(), text


def error_in(text: str) -> TextError | None:
    try:
        text_parser.parse(text.encode(), prototxt.caffe_pb2().SolverParameter())
    except TextError as error:
        return error
    return None


WORDS = [*"{}<>[]:;,.-'\"\\\n#_ ", "max_iter", "1", "0x", "\u00e9", "net_param"]


@pytest.mark.usefixtures("tree")
@given(st.lists(st.sampled_from(WORDS)).map("".join))
def test_any_text_is_read_or_told_where_it_is_wrong(text: str) -> None:
    error = error_in(text)
    if error:
        lines = text.split("\n")
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1
        assert error.reason or error.unknown


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\nmax_iter: 300_000", "2:11: 300_000 is not a number to Caffe"),
        ("max_iter: 0b100", "1:11: 0b100 is not a number to Caffe"),
        ('net: "E:\\Project"', r"1:9: \P has no meaning in a string; write / or \\"),
        ('net: "a', "1:6: a string that does not end on its line"),
        ("max_iter: 1e3", "1:11: expected a whole number, found 1e3"),
        ("base_lr: 010", "1:10: 010, where only a decimal number is allowed"),
        (
            "max_iter: -2147483649",
            "1:12: 2147483649 is out of range, from -2147483648 to 2147483647",
        ),
        ("debug_info: yes", "1:13: expected true or false, found yes"),
        ("net_param { ", '1:13: expected "}", found the end of the text'),
        ("test_iter: [1 2]", '1:15: expected "," or "]", found 2'),
        ("max_iter: \u4e00", "1:11: U+4E00 (cjk unified ideograph-4e00), which Caffe allows"),
    ],
)
@pytest.mark.usefixtures("tree")
def test_what_is_wrong_is_told(text: str, reason: str) -> None:
    with pytest.raises(TextError) as refused:
        text_parser.parse(text.encode(), prototxt.caffe_pb2().SolverParameter())
    assert str(refused.value).startswith(reason)
