"""Upstream's source: what is taken for it, what is refused, and how that is said."""

import gzip
import http.server
import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caffe_clr.errors import ClrError
from caffe_clr.harness import series, source

Unpack = Callable[[Path], Path]


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def unpack(upstream: source.Upstream, patches: list[series.Patch], tmp_path: Path) -> Unpack:
    def run(given: Path) -> Path:
        source.unpack(given, upstream, patches, tmp_path / "unpacked")
        return tmp_path / "unpacked"

    return run


def refusal(unpack: Unpack, given: Path, tmp_path: Path) -> str:
    with pytest.raises(source.SourceError) as refused:
        unpack(given)
    assert not (tmp_path / "unpacked").exists()
    return str(refused.value)


def test_a_folder_a_tarball_and_one_with_a_top_level_folder_are_the_same(
    pristine: Path, tarball: Path, upstream: source.Upstream, unpack: Unpack, tmp_path: Path
) -> None:
    github = tmp_path / "caffe-99bd997.tar.gz"
    with tarfile.open(github, "w:gz", compresslevel=1) as archive:
        archive.add(pristine, "caffe-99bd997")
    zipped = tmp_path / "caffe-99bd997.zip"
    with zipfile.ZipFile(zipped, "w") as archive_of_zip:
        for name in upstream.files:
            archive_of_zip.write(pristine / name, f"caffe-99bd997/{name}")
    for given in (pristine, tarball, github, zipped):
        assert names(unpack(given)) == set(upstream.files)
    for given in (tarball, zipped):
        assert os.access(unpack(given) / "scripts/cpp_lint.py", os.X_OK)
        assert not os.access(unpack(given) / "README.md", os.X_OK)


def test_what_the_revision_does_not_have_is_left_out(
    checkout: Path, upstream: source.Upstream, unpack: Unpack
) -> None:
    (checkout / "build").mkdir()
    (checkout / "build" / "libcaffe.so").write_text("stale")
    assert names(unpack(checkout)) == set(upstream.files)


def test_nothing_is_written_outside_the_folder(
    tarball: Path, unpack: Unpack, tmp_path: Path
) -> None:
    evil = tmp_path / "evil.tar"
    with tarfile.open(tarball) as old, tarfile.open(evil, "w") as new:
        for member in old:
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
        for name in ("../escaped", "/tmp/caffe-clr-escaped", "x/../../escaped"):
            new.addfile(tarfile.TarInfo(name), io.BytesIO())
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        new.addfile(link)
    unpack(evil)
    assert not (tmp_path / "escaped").exists()
    assert not Path("/tmp/caffe-clr-escaped").exists()
    assert not (tmp_path / "unpacked" / "link").exists()


def test_not_caffe_at_all(unpack: Unpack, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    message = refusal(unpack, tmp_path / "other", tmp_path)
    assert "other is not Caffe's source: it has no src/caffe/proto/caffe.proto" in message
    assert refusal(unpack, tmp_path / "none", tmp_path).endswith("none: no such file or folder")


def test_another_revision_is_told_file_by_file(
    checkout: Path, upstream: source.Upstream, unpack: Unpack, tmp_path: Path
) -> None:
    (checkout / "CMakeLists.txt").write_text("project(Caffe)\n")
    (checkout / "include/caffe/net.hpp").unlink()
    message = refusal(unpack, checkout, tmp_path)
    assert "is not Caffe's revision 99bd997" in message
    assert f"1 of its {len(upstream.files)} files are missing, 1 differ" in message
    assert "  include/caffe/net.hpp: missing\n  CMakeLists.txt: differs" in message


def test_a_long_list_of_differences_is_cut(checkout: Path, unpack: Unpack, tmp_path: Path) -> None:
    shutil.rmtree(checkout / "src/caffe/layers")
    message = refusal(unpack, checkout, tmp_path)
    assert len(message.splitlines()) == 12
    assert message.splitlines()[-1].startswith("  and ")


def test_an_already_patched_folder(
    checkout: Path, patches: list[series.Patch], unpack: Unpack, tmp_path: Path
) -> None:
    series.apply(checkout, series.select(patches, ["cyclical-learning-rates"]))
    message = refusal(unpack, checkout, tmp_path)
    assert "is already patched with cyclical-learning-rates.patch" in message
    assert "give the unpatched revision 99bd997" in message


def test_a_copy_of_another_caffe_has_no_builds_and_no_data(checkout: Path, tmp_path: Path) -> None:
    own = names(checkout)
    for left_out in (
        "build/libcaffe.so", ".build_release/a.o", ".git/HEAD", "out/CMakeCache.txt",
        "examples/mnist/lmdb/data.mdb", "distribute/lib/libcaffe.a",
    ):  # fmt: skip
        (checkout / left_out).parent.mkdir(parents=True, exist_ok=True)
        (checkout / left_out).write_bytes(b"x")
    with (checkout / "examples/mnist/lmdb/data.mdb").open("r+b") as file:
        file.truncate(2**33)
    (checkout / "Makefile.config").write_text("CPU_ONLY := 1\n")
    source.copy(checkout, tmp_path / "copy")
    hidden = {name for name in own if name.startswith(".")}
    assert names(tmp_path / "copy") >= own - hidden
    assert names(tmp_path / "copy") <= own | {"Makefile.config"}


@pytest.mark.parametrize("bytes_kept", [0, 100, 4_000_000])
def test_a_tarball_that_was_cut_off(
    tarball: Path, bytes_kept: int, unpack: Unpack, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(tarball.read_bytes()[:bytes_kept])
    assert "cut.tar.gz is not a complete tar or zip archive" in refusal(unpack, cut, tmp_path)


def test_a_tarball_with_a_damaged_byte(tarball: Path, unpack: Unpack, tmp_path: Path) -> None:
    content = bytearray(gzip.decompress(tarball.read_bytes()))
    content[content.index(b"cmake_minimum_required")] ^= 1
    damaged = tmp_path / "damaged.tar.gz"
    damaged.write_bytes(gzip.compress(bytes(content), 1))
    assert "CMakeLists.txt: differs" in refusal(unpack, damaged, tmp_path)


class Github:
    """A web server on this machine that stands in for upstream's archive."""

    def __init__(self, folder: Path) -> None:
        def handler(*arguments: Any) -> http.server.BaseHTTPRequestHandler:
            return Handler(*arguments, directory=str(folder))

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever).start()


@pytest.fixture
def github(tmp_path: Path) -> Iterator[Github]:
    (tmp_path / "www").mkdir()
    github = Github(tmp_path / "www")
    yield github
    github.server.shutdown()
    github.server.server_close()


@pytest.fixture
def no_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "apt-get" else which(name))


@pytest.mark.usefixtures("no_apt")
def test_without_apt_the_source_comes_from_upstream_and_is_cached(
    upstream: source.Upstream, tarball: Path, github: Github, tmp_path: Path
) -> None:
    shutil.copy(tarball, tmp_path / "www" / "caffe.tar.gz")
    there = replace(upstream, github={"url": f"{github.url}/caffe.tar.gz"})
    found, place = source.fetch(there, tmp_path / "cache")
    assert place == "github.com"
    assert found.read_bytes() == tarball.read_bytes()
    assert source.fetch(there, tmp_path / "cache") == (found, "the cache")
    assert os.listdir(tmp_path / "cache") == [found.name]


@pytest.mark.usefixtures("no_apt")
def test_a_bad_download_is_not_kept(
    upstream: source.Upstream, tarball: Path, github: Github, tmp_path: Path
) -> None:
    (tmp_path / "www" / "cut.tar.gz").write_bytes(tarball.read_bytes()[:1_000_000])
    for path, reason in {
        "cut.tar.gz": "is not a complete tar or zip archive",
        "none": "HTTP Error 404",
    }.items():
        there = replace(upstream, github={"url": f"{github.url}/{path}"})
        with pytest.raises(ClrError) as refused:
            source.fetch(there, tmp_path / "cache")
        message = str(refused.value)
        assert "Debian's archive: this system has no apt-get" in message
        assert "github.com: " in message
        assert reason in message
        assert "--source PATH" in message
        assert os.listdir(tmp_path / "cache") == []


@pytest.mark.usefixtures("no_apt")
def test_a_download_that_stalls_is_not_called_truncated(
    upstream: source.Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/caffe.tar.gz"

        def stall() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut")
                connection.recv(10_000)
                connection.recv(10_000)  # until the other side gives up

        thread = threading.Thread(target=stall)
        thread.start()
        with pytest.raises(ClrError, match=r"the download broke off: .*timed out"):
            source.fetch(replace(upstream, github={"url": url}), tmp_path / "cache")
        thread.join()


def test_no_network(upstream: source.Upstream, tmp_path: Path) -> None:
    """Behind a proxy that is not there, so that apt and upstream both fail."""
    script = (
        "from pathlib import Path; from caffe_clr.harness import source;"
        "from caffe_clr import locations;"
        "source.fetch(source.load_upstream(locations.shipped('caffe_patch')), Path('cache'))"
    )
    nowhere = "http://127.0.0.1:9"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "http_proxy": nowhere, "https_proxy": nowhere},
        capture_output=True,
        text=True,
    )
    message = done.stderr.split("ClrError: ")[-1]
    assert message.startswith("Caffe's source (99bd997) could not be fetched:\n"), done.stderr
    assert "  Debian's archive: apt-get: " in message
    assert "  github.com: " in message


def test_a_wrong_hash_from_debians_archive(
    upstream: source.Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def apt(command: list[str], folder: Path) -> None:
        if "source" in command:
            (folder / upstream.debian["tarball"]).write_bytes(b"not what was asked for")

    monkeypatch.setattr(source, "_apt", apt)
    monkeypatch.setattr(source, "_debian_archives", lambda: ["http://archive.invalid/debian"])
    there = replace(upstream, github={"url": "http://127.0.0.1:9/none"})
    with pytest.raises(ClrError) as refused:
        source.fetch(there, tmp_path / "cache")
    assert f"expected {upstream.debian['sha256']}: it was truncated or changed" in str(
        refused.value
    )
    assert os.listdir(tmp_path / "cache") == []
