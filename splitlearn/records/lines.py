"""A file's lines, decoded strictly and one at a time. Torch-free."""

import stat
from collections.abc import Iterator
from pathlib import Path

from splitlearn.errors import DataError

_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


def decoded_lines(path: Path, *, max_line_bytes: int) -> Iterator[str]:
    """Yield each line of a UTF-8 file with its terminator; a byte-order mark is passed over.

    Lines end with a line feed alone: a carriage return, form feed or Unicode separator within a line is
    the line's own text. The file is read once and never held whole.

    Raises:
        DataError: The file is no regular file, cannot be opened, is not UTF-8, holds a NUL byte, ends its
            lines with carriage returns alone, or has a line of more than ``max_line_bytes``.
    """
    try:
        _refuse_special(path)
        with path.open("rb") as file:
            number = 0
            while line := file.readline(max_line_bytes + 1):
                number += 1
                yield _decoded(line, where=f"{path}:{number}", number=number, max_line_bytes=max_line_bytes)
    except OSError as error:
        raise DataError(
            f"{path}: cannot read the data ({error.strerror}); give the path of a readable file"
        ) from error


def _refuse_special(path: Path) -> None:
    mode = path.stat().st_mode
    # Opening a pipe waits for a writer, perhaps for ever. A folder is refused by opening it.
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataError(
            f"{path}: cannot read the data (a pipe, socket or device, no regular file); "
            "write the rows into a file and give its path"
        )


def _decoded(line: bytes, *, where: str, number: int, max_line_bytes: int) -> str:
    if number == 1:
        if line.startswith(_UTF16_BOMS):
            raise DataError(f"{where}: the file is UTF-16, expected UTF-8; save it as UTF-8")
        line = line.removeprefix(_UTF8_BOM)
        if b"\n" not in line and b"\r" in line.rstrip(b"\r"):
            raise DataError(
                f"{where}: the lines end with carriage returns alone, expected line feeds; "
                "save the file with Unix or Windows line ends"
            )
    if len(line) > max_line_bytes:
        raise DataError(
            f"{where}: the line has more than {max_line_bytes} bytes, the limit of one line; "
            "split it, or check that the file is text"
        )
    if b"\0" in line:
        raise DataError(
            f"{where}: NUL byte at byte {line.index(0) + 1} of the line, expected UTF-8 text; "
            "the file is binary or UTF-16: save it as UTF-8 text"
        )
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: byte 0x{line[error.start]:02x} at byte {error.start + 1} of the line is not UTF-8; "
            "save the file as UTF-8"
        ) from error
