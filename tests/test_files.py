"""Files that are there whole or not at all."""

from pathlib import Path

import pytest

from caffe_clr.system.files import replacing


def test_a_file_takes_the_place_of_another_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.parent == tmp_path
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_put_where_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with replacing(path) as partial:
        partial.mkdir()
        (partial / "file").write_text("whole")
    assert (path / "file").read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def _write_file(partial: Path) -> None:
    partial.write_text("half")


def _write_folder(partial: Path) -> None:
    partial.mkdir()
    _write_file(partial / "file")


@pytest.mark.parametrize("write", [_write_file, _write_folder, lambda partial: None])
def test_what_fails_leaves_nothing_behind(write: object, tmp_path: Path) -> None:
    assert callable(write)
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:  # noqa: PT012
        write(partial)
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
