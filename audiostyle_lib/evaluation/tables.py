"""Tables of files to score, as people and their spreadsheets write them.

Used by ``audiostyle benchmark --table``.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from ..errors import InputError

WANTED = ("content", "style", "output")
OPTIONAL = ("truth",)
DELIMITERS = (",", ";", "\t")
MAX_BYTES = 50_000_000
WORKBOOKS = (b"PK\3\4", b"\xd0\xcf\x11\xe0")  # .xlsx, .ods and .numbers; .xls


@dataclass(frozen=True)
class Row:
    """A row of a table; `cells` has a text for each column, empty where the table has none."""

    table: Path
    line: int  # at which it ends, from 1
    cells: dict[str, str]

    def __str__(self) -> str:
        return f"{self.table}, line {self.line}"

    def file(self, column: str) -> Path:
        """The file that a cell names, relative to the folder of the table.

        Raises
        ------
        InputError
            If the cell is empty.
        """
        cell = self.cells[column]
        if not cell:
            raise InputError(f"no {column}")
        if cell.startswith("~/"):
            return Path(cell).expanduser()
        file = self.table.parent / cell
        if "\\" in cell and not file.exists():  # written on Windows
            return self.table.parent / PureWindowsPath(cell).as_posix()
        return file


def read_rows(path: str | Path) -> list[Row]:
    """Read the rows of a table, but for those without any cell.

    Parameters
    ----------
    path : str or Path
        Text with a header that names the columns content, style, output and, optionally, truth, in any
        order and case; others are ignored. Cells are separated by commas, semicolons or tabs. The text
        is UTF-8, UTF-16 with a byte order mark, or else Windows-1252.

    Returns
    -------
    list of Row
        At least one.

    Raises
    ------
    InputError
        If the file is no such table; says why.
    """
    path = Path(path)
    header, parsed = _header_and_rows(_text(path), path)
    columns = {name: i for i, name in enumerate(header) if name in WANTED + OPTIONAL}
    if twice := [name for name in columns if header.count(name) > 1]:
        raise InputError(f"{path}: has two columns {twice[0]}")

    def named(cells: list[str]) -> dict[str, str]:
        given = {name: cells[i] for name, i in columns.items() if i < len(cells)}
        return dict.fromkeys(WANTED + OPTIONAL, "") | given

    try:
        rows = [Row(path, line, named(cells)) for line, cells in parsed]
    except csv.Error as error:
        raise InputError(f"{path}: not a table ({error})") from error
    if not rows:
        raise InputError(f"{path}: has no rows below its header")
    return rows


def _header_and_rows(text: str, path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header, by the separator that finds the wanted columns in it, and the rows below it."""
    for delimiter in DELIMITERS:
        rows = _parsed(text, delimiter)
        try:
            header = [cell.casefold() for cell in next(rows, (0, []))[1]]
        except csv.Error:  # by another separator it is one cell, maybe longer than any may be
            continue
        if set(WANTED) <= set(header):
            return header, rows
    raise InputError(f"{path}: needs a header with content, style, output (and truth)")


def _text(path: Path) -> str:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path}: is a folder, a device or a pipe, not a table")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: too large for a table (over {MAX_BYTES // 10**6} MB)")
    data = path.read_bytes()
    if data.startswith(WORKBOOKS):
        raise InputError(f"{path}: is a workbook: save it as CSV in the spreadsheet")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise InputError(f"{path}: not a table: no text in UTF-8, UTF-16 or Windows-1252")


def _parsed(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of the rows that have any, without a hint to Excel such as ``sep=;``."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells) and not cells[0].casefold().startswith("sep="):
            yield reader.line_num, cells
