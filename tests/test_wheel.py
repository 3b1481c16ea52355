"""The wheel with Caffe in it: what it needs of the system, and that it works unpacked elsewhere."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from caffe_clr import locations
from caffe_clr.errors import ClrError
from caffe_clr.harness import wheel
from caffe_clr.harness.compilation import Tree

# what PEP 600 lets a wheel expect of a system
ALLOWED = re.compile(
    r"(linux-vdso|ld-linux-.*|lib(c|m|dl|rt|pthread|resolv|stdc\+\+|gcc_s|z|expat))\.so"
)


@pytest.fixture(scope="module")
def packed(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel.pack(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def site(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as pip unpacks it."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(packed) as archive:
        for entry in archive.infolist():
            file = Path(archive.extract(entry, folder))
            if entry.external_attr >> 16 & 0o111:
                file.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def info(site: Path) -> Path:
    (folder,) = site.glob("*.dist-info")
    return folder


def run(site: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        command, env={**kept, "PYTHONPATH": str(site)}, cwd=site, capture_output=True, text=True
    )


def test_the_name_tells_which_systems_it_is_for(packed: Path, info: Path) -> None:
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.fullmatch(
        rf"caffe_clr-[\d.]+-{python}-{python}-manylinux_2_\d+_x86_64\.whl", packed.name
    )
    assert "Root-Is-Purelib: false" in (info / "WHEEL").read_text()


def test_no_library_is_taken_from_the_system(site: Path) -> None:
    files = [site / "caffe/_caffe.so", *(site / "caffe_clr/data/bin").iterdir()]
    assert len(files) == len(wheel.TOOLS) + 1
    for file in files:
        for line in run(site, "ldd", file).stdout.splitlines():
            found = re.match(r"\s*(\S+)(?: => (\S+))?", line)
            assert found
            name, path = found.groups()
            assert ALLOWED.match(Path(name).name) or str(path).startswith(str(site)), line


def test_caffe_is_imported_and_trains(site: Path) -> None:
    code = (
        "import caffe, caffe_clr; from pathlib import Path; print(caffe.__file__);"
        "solver = caffe.get_solver('caffe_clr/data/caffe_patch/triangular.prototxt');"
        "solver.step(3); print(solver.lr);"
        "print(*{line.split()[-1] for line in open('/proc/self/maps') if 'libcaffe' in line})"
    )
    done = run(site, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    module, rate, library = done.stdout.split()
    assert module == str(site / "caffe/__init__.py")
    assert float(rate) == 4
    assert library.startswith(str(site / "caffe_clr.libs"))


def test_the_tools_are_commands(site: Path, info: Path, tmp_path: Path) -> None:
    commands = (info / "entry_points.txt").read_text()
    assert "caffe-clr = caffe_clr.cli:main" in commands
    assert "caffe = caffe_clr.harness.programs:main" in commands
    caffe = tmp_path / "caffe"  # as pip writes it
    caffe.write_text("import sys; from caffe_clr.harness.programs import main; sys.exit(main())\n")
    solver = site / "caffe_clr/data/caffe_patch/triangular.prototxt"
    done = run(site, sys.executable, caffe, "train", f"--solver={solver}")
    assert re.findall(r"lr = (\S+)", done.stderr) == [*"123454321"]


def test_the_licences_of_all_that_is_inside_go_with_it(info: Path) -> None:
    names = {path.name for path in (info / "licenses").iterdir()}
    assert {"LICENSE", "LICENSE.caffe", "LICENSE.openblas", "LICENSE.onednn"} <= names
    assert any(name.startswith("LICENSE.python3") for name in names)
    assert all((info / "licenses" / name).stat().st_size > 500 for name in names)


def test_what_pip_compiled_is_carried_instead_of_required(tmp_path: Path) -> None:
    info = tmp_path / "caffe_clr-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Requires-Dist: numpy>=1\nRequires-Dist: six>=1.16\n")
    assert wheel._compiled_here(tmp_path) == []
    assert wheel._carry(tmp_path, "six") == {}
    assert (info / "METADATA").read_text() == "Requires-Dist: numpy>=1\n"
    assert "def ensure_str" in (tmp_path / "six.py").read_text()
    assert "Benjamin Peterson" in (info / "licenses/LICENSE.six").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {info.name, "six.py"}


def test_what_reads_leveldb_is_carried_where_pip_compiled_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Compiled:
        def read_text(self, name: str) -> str:
            return "Tag: cp313-cp313-linux_x86_64\n"

    info = tmp_path / "caffe_clr-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Requires-Dist: plyvel-ci>=1.5.1; python_version < '3.13'\n"
        "Requires-Dist: plyvel-ci>=1.5.1; extra == 'leveldb'\n"
        "Requires-Dist: mpi4py>=4; extra == 'mpi'\n"
    )
    monkeypatch.setattr(wheel, "_distribution", lambda name: Compiled())
    assert wheel._compiled_here(tmp_path) == ["plyvel-ci"]


def test_doctor_knows_the_caffe_of_the_wheel(site: Path) -> None:
    done = run(site, sys.executable, "-m", "caffe_clr", "doctor")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^Caffe +{site}/caffe$", done.stdout, re.MULTILINE)
    assert "cyclical-learning-rates, " in done.stdout
    assert "liblmdb-dev" not in done.stdout


def test_what_a_wheel_takes_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(wheel, "_EXTRA", ("auditwheel", "not-there"))
        with pytest.raises(
            ClrError, match=r"not-there: not installed; .*pip install -e '.*\[wheel\]'"
        ):
            wheel.pack(tmp_path)
    monkeypatch.setattr(locations, "checkout", lambda: None)
    with pytest.raises(ClrError, match="in the project's checkout"):
        wheel.pack(tmp_path)
