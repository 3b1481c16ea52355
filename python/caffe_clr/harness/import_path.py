"""Makes `import caffe` work in this Python environment."""

import importlib
import sys
import sysconfig
from pathlib import Path

from caffe_clr.errors import ClrError

_PATH_FILE = "caffe-clr.pth"


def add(folder: Path) -> Path:
    """Put `folder` on the import path of this environment and of this process.

    It takes the place of an earlier build's folder.

    Returns:
        The path configuration file that says so.

    Raises:
        ClrError: the environment cannot be written.
    """
    file = Path(sysconfig.get_path("purelib")) / _PATH_FILE
    line = f"{folder}\n"
    try:
        if not file.is_file() or file.read_text() != line:
            file.write_text(line)
    except OSError as error:
        raise ClrError(
            f"{file} cannot be written: {error.strerror}; activate a virtual environment that"
            " you can write to"
        ) from None
    # the file is read when Python starts, and this one has
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()
    return file
