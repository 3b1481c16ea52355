"""What reading a tarball raises when it is none, or not whole."""

import gzip
import lzma
import tarfile
import zlib

DAMAGED = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError)
