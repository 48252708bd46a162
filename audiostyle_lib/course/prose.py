"""Sentences and tables whose numbers come from the run. Used by all notebooks.

A sentence in a Markdown cell keeps its numbers when a run gives others. One that is written by `say`
takes them from the run, and can choose its words by a condition.
"""

from __future__ import annotations

import inspect
from pathlib import Path

from ..paths import written_beside

MAX_COLUMNS = 8  # a wider table does not fit a page


def say(text: str) -> None:
    """Show Markdown text, written in a cell as an f-string over as many lines as it needs.

    Parameters
    ----------
    text : str
        Common indentation is removed.
    """
    from IPython.display import Markdown, display

    display(Markdown(inspect.cleandoc(text)))


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A header and rows of cells as a table in Markdown.

    Raises
    ------
    ValueError
        If there are more than eight columns, or a row has more or fewer cells than the header.
    """
    if len(header) > MAX_COLUMNS:
        raise ValueError(f"{len(header)} columns, of at most {MAX_COLUMNS}: split the table")
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"a row with other than the header's {len(header)} cells")
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def table(header: list[str], rows: list[list[str]]) -> None:
    """Show a table; see `markdown_table`."""
    say(markdown_table(header, rows))


def replace_between(file: Path, marker: str, text: str) -> None:
    """Put `text` between ``<!-- marker: begin -->`` and ``<!-- marker: end -->`` in a file."""
    begin, end = f"<!-- {marker}: begin -->", f"<!-- {marker}: end -->"
    before, rest = file.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    with written_beside(file) as temporary:
        temporary.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
