"""Fetches upstream Caffe's source, checks it file by file, and unpacks it.

caffe_patch/upstream.toml lists the places to get the pinned revision from, and
upstream.sha256 the hashes of its files. Other files are left out.
"""

import hashlib
import http.client
import os
import shutil
import subprocess
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe_clr.errors import ClrError
from caffe_clr.harness import series
from caffe_clr.system import archives

_TIMEOUT_SECONDS = 30
_LARGEST_SOURCE = 8_000_000  # bytes
_FILES_NAMED = 10  # in a message about files that differ


@dataclass(frozen=True)
class Upstream:
    """The pinned revision, its places, and the sha256 of each of its files."""

    commit: str
    debian: dict[str, Any]
    github: dict[str, Any]
    files: dict[str, str]

    @property
    def revision(self) -> str:
        return self.commit[:7]


class SourceError(ClrError):
    """A folder or archive that does not hold the pinned revision."""


class OtherRevisionError(SourceError):
    """One that holds another Caffe."""


def load_upstream(patches: Path) -> Upstream:
    """The pinned revision that the series in the folder `patches` is written for."""
    facts = tomllib.loads((patches / "upstream.toml").read_text())
    lines = (patches / "upstream.sha256").read_text().splitlines()
    files = {path: digest for digest, path in (line.split("  ", 1) for line in lines)}
    return Upstream(facts["commit"], facts["debian"], facts["github"], files)


def fetch(upstream: Upstream, cache: Path) -> tuple[Path, str]:
    """The tarball of the pinned revision, from the cache or downloaded into it.

    Returns:
        Its path, and where it came from.

    Raises:
        ClrError: no place could give it; says why, place by place.
    """
    tarball = cache / upstream.debian["tarball"]
    if tarball.is_file():
        return tarball, "the cache"
    cache.mkdir(parents=True, exist_ok=True)
    failures = []
    places = {"Debian's archive": _from_debian, "github.com": _from_github}
    for place, download in places.items():
        # a file is in the cache only when it is whole and checked
        with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as folder:
            try:
                download(upstream, Path(folder), tarball)
                return tarball, place
            except ClrError as failure:
                failures.append(f"  {place}: {failure}")
    listed = "\n".join(failures)
    raise ClrError(
        f"Caffe's source ({upstream.revision}) could not be fetched:\n{listed}\n"
        "Connect to a network and run this again, or give a folder or tarball: --source PATH"
    )


def unpack(source: Path, upstream: Upstream, patches: list[series.Patch], folder: Path) -> None:
    """Write the pinned revision's files from a folder or tarball into a new `folder`.

    Raises:
        SourceError: `source` is not the pinned revision; says whether it is
            Caffe at all, already patched, or which files differ.
    """
    shutil.rmtree(folder, ignore_errors=True)
    found = {}
    try:
        for path, content, executable in _read(source, upstream):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(0o755 if executable else 0o644)
            found[path] = hashlib.sha256(content).hexdigest()
        _check(source, found, upstream, patches, folder)
    except SourceError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def copy(source: Path, folder: Path) -> None:
    """Write what a build needs of another Caffe than the pinned one into a new `folder`.

    Data sets, weights and what earlier builds left are not among it.
    """

    def ignored(parent: str, names: list[str]) -> list[str]:
        paths = [Path(parent, name) for name in names]
        return [path.name for path in paths if not _is_source(path)]

    shutil.rmtree(folder, ignore_errors=True)
    try:
        shutil.copytree(source, folder, ignore=ignored)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise SourceError(f"{source} cannot be read: {error}") from None


def _is_source(path: Path) -> bool:
    if path.is_dir():
        built = path.name in ("build", "distribute") or (path / "CMakeCache.txt").exists()
        return not (built or path.name.startswith(".") or path.is_symlink())
    return path.is_file() and path.stat().st_size <= _LARGEST_SOURCE


def _check(
    source: Path,
    found: dict[str, str],
    upstream: Upstream,
    patches: list[series.Patch],
    folder: Path,
) -> None:
    if series.PROTO not in found:
        raise SourceError(f"{source} is not Caffe's source: it has no {series.PROTO}")
    missing = sorted(upstream.files.keys() - found.keys())
    differing = sorted(path for path in found if found[path] != upstream.files[path])
    if not missing and not differing:
        return
    for patch in patches:
        # the files that a patch adds were not read
        checks = [c for c in series.check(folder, [patch]) if c.file in upstream.files]
        if checks and series.is_applied(checks):
            raise OtherRevisionError(
                f"{source} is already patched with {patch.path.name}; give the unpatched"
                f" revision {upstream.revision}"
            )
    listed = [f"  {path}: missing" for path in missing]
    listed += [f"  {path}: differs" for path in differing]
    if len(listed) > _FILES_NAMED:
        listed[_FILES_NAMED:] = [f"  and {len(listed) - _FILES_NAMED} more"]
    raise OtherRevisionError(
        f"{source} is not Caffe's revision {upstream.revision}; {len(missing)} of its"
        f" {len(upstream.files)} files are missing, {len(differing)} differ:\n" + "\n".join(listed)
    )


def _read(source: Path, upstream: Upstream) -> Iterator[tuple[str, bytes, bool]]:
    """Each pinned file that a folder or tarball has: path, content, whether it is executable."""
    if source.is_dir():
        for path in upstream.files:
            file = source / path
            if file.is_file():
                yield path, file.read_bytes(), bool(file.stat().st_mode & 0o100)
    elif source.is_file():
        yield from _read_tarball(source, upstream)
    else:
        raise SourceError(f"{source}: no such file or folder")


def _read_tarball(tarball: Path, upstream: Upstream) -> Iterator[tuple[str, bytes, bool]]:
    # Nothing is extracted to a path that the archive chooses: only files that
    # the pinned revision has are read, with or without one top-level folder.
    try:
        for file in archives.files(tarball):
            parts = file.name.parts
            for path in ("/".join(parts), "/".join(parts[1:])):
                if path in upstream.files:
                    yield path, file.read(), file.is_executable
                    break
    except archives.DAMAGED as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise SourceError(f"{tarball} is not a complete tar or zip archive: {reason}") from None
    except OSError as error:
        raise SourceError(f"{tarball} cannot be read: {error.strerror or error}") from None


def _from_debian(upstream: Upstream, folder: Path, tarball: Path) -> None:
    """Let apt find and download the source package, without touching the system's own lists."""
    if not shutil.which("apt-get"):
        raise ClrError("this system has no apt-get")
    debian = upstream.debian
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    archives = _debian_archives()
    if not archives:
        raise ClrError("apt has no Debian archive configured")
    (folder / "sources.list").write_text(
        "".join(f"deb-src {uri} {debian['release']} {debian['component']}\n" for uri in archives)
    )
    options = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": lists,
        "Dir::Cache": folder,
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "Acquire::Retries": 1,
        "Acquire::http::Timeout": _TIMEOUT_SECONDS,
        "Acquire::https::Timeout": _TIMEOUT_SECONDS,
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    _apt([*apt, "update"], folder)
    _apt([*apt, "source", "--download-only", "--tar-only", debian["package"]], folder)
    downloaded = folder / debian["tarball"]
    if not downloaded.is_file():
        raise ClrError(f"apt did not download {downloaded.name}")
    digest = hashlib.sha256(downloaded.read_bytes()).hexdigest()
    if digest != debian["sha256"]:
        raise ClrError(
            f"{downloaded.name} has the sha256 {digest}, expected {debian['sha256']}: it was"
            " truncated or changed in transit"
        )
    os.replace(downloaded, tarball)


def _debian_archives() -> list[str]:
    # the release files are not there before `apt-get update`, and not in an image
    command = ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)"]
    done = subprocess.run([*command, "Created-By: Packages"], capture_output=True, text=True)
    return [uri for uri in dict.fromkeys(done.stdout.split()) if "security" not in uri]


def _apt(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ClrError(f"apt-get: {lines[0].removeprefix('E: ')}")


def _from_github(upstream: Upstream, folder: Path, tarball: Path) -> None:
    downloaded = folder / tarball.name
    try:
        with (
            urllib.request.urlopen(upstream.github["url"], timeout=_TIMEOUT_SECONDS) as response,
            downloaded.open("wb") as file,
        ):
            shutil.copyfileobj(response, file)
    except urllib.error.HTTPError as error:
        raise ClrError(f"{error}") from None
    except urllib.error.URLError as error:
        raise ClrError(f"{error.reason}") from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise ClrError(f"the download broke off: {error}") from None
    unpack(downloaded, upstream, [], folder / "check")
    os.replace(downloaded, tarball)
