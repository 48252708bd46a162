"""Tables of files as spreadsheets and people write them, read, or refused by row."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from audiostyle_lib.__main__ import main
from audiostyle_lib.errors import InputError
from audiostyle_lib.evaluation import benchmark, tables
from audiostyle_lib.signal import audio

HEADER = "content,style,truth,output\n"
ROW = {"content": "ä b.wav", "style": "s.flac", "truth": "", "output": "o.wav"}


def rows_of(tmp_path, data: bytes) -> list[tables.Row]:
    path = tmp_path / "table.csv"
    path.write_bytes(data)
    return tables.read_rows(path)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_separators_and_ends_of_lines(tmp_path, encoding, delimiter, ending):
    lines = [("content", "style", "truth", "output"), tuple(ROW.values()), ("", "", "", "")]
    text = ending.join(delimiter.join(cells) for cells in lines) + ending
    (row,) = rows_of(tmp_path, text.encode(encoding))
    assert row.cells == ROW and row.line == 2


@pytest.mark.parametrize(
    "text",
    [
        "Content, STYLE ,Truth,Output\nä b.wav, s.flac , ,o.wav\n",  # case, blanks
        "output;style;note;content\no.wav;s.flac;fine;ä b.wav\n",  # order, a column of one's own
        'content,style,output\n"ä b.wav","s.flac","o.wav"',  # quoted, no end of the last line
        "\n,,,\ncontent,style,output,\nä b.wav,s.flac,o.wav,\n,,,\n",  # empty lines before and after
        "sep=;\ncontent;style;output\nä b.wav;s.flac;o.wav\n",  # a hint to Excel
        'content;style;output;"a, b"\nä b.wav;s.flac;o.wav;1,5\n',  # commas beside semicolons
        "content,style,output\nä b.wav,s.flac,o.wav,more,cells,than,columns\n",
        "content\tstyle\toutput\n\xa0ä b.wav\u3000\ts.flac\to.wav\n",  # blanks of other kinds
    ],
)
def test_what_people_and_spreadsheets_write_is_read(tmp_path, text):
    (row,) = rows_of(tmp_path, text.encode())
    assert row.cells == ROW


def test_many_columns_are_no_matter(tmp_path):
    extra = [f"x{i}" for i in range(100_000)]
    text = ";".join([*extra, "content", "style", "output"]) + "\n" + ";" * len(extra) + "a;b;c\n"
    (row,) = rows_of(tmp_path, text.encode())
    assert [row.cells[name] for name in tables.WANTED] == ["a", "b", "c"]


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    text = 'content,style,output,note\na,b,c,"of two\nlines"\n\n,,,\nd,,f\ng\n'
    rows = rows_of(tmp_path, text.encode())
    assert [row.line for row in rows] == [3, 6, 7]
    assert str(rows[1]) == f"{tmp_path / 'table.csv'}, line 6"
    for row, missing in ((rows[1], "style"), (rows[2], "style"), (rows[2], "output")):
        with pytest.raises(InputError, match=f"no {missing}"):
            row.file(missing)


def test_files_are_relative_to_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").touch()
    (tmp_path / "odd\\name.wav").touch()
    cells = ["clips/a.wav", "clips\\a.wav", "./clips/../clips/a.wav", str(tmp_path / "clips/a.wav")]
    for cell in cells:
        row = tables.Row(tmp_path / "table.csv", 2, ROW | {"content": cell})
        assert row.file("content").resolve() == tmp_path / "clips" / "a.wav"
    for cell, file in (
        ("odd\\name.wav", "odd\\name.wav"),
        ("~/x.wav", "home/x.wav"),
        ("~x.wav", "~x.wav"),
    ):
        row = tables.Row(tmp_path / "table.csv", 2, ROW | {"content": cell})
        assert row.file("content") == tmp_path / file


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "needs a header"),
        (b"\n\n;;;\n", "needs a header"),
        (b"content,style\na.wav,b.wav\n", "needs a header"),
        (b"a.wav,b.wav,,c.wav\n", "needs a header"),
        (b"<html><body>content,style,output</body>", "needs a header"),
        (HEADER.encode(), "no rows below"),
        (HEADER.replace(",", ";").encode("utf-16") + ";;;\r\n".encode("utf-16-le"), "no rows below"),
        (b"content,style,output,Output\na,b,c,d\n", "two columns output"),
        (b"PK\3\4" + bytes(range(256)) * 4, "workbook: save it as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000), "workbook: save it as CSV"),
        (bytes(range(256)) * 10, "no text"),
        (b"content,style,output\n\0,\0,\0\n", "no text"),
        (b"content,style,output\n\x81,b,c\n", "no text"),
        (HEADER.encode("utf-16")[:-1], "no text"),
        (b'content,style,output\n"' + b"a" * 200_000 + b'",b,c\n', "field larger than"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_by_name(data, reason, tmp_path):
    with pytest.raises(InputError, match=rf"table\.csv: .*{reason}"):
        rows_of(tmp_path, data)


def test_a_table_is_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="not a table"):
            tables.read_rows(place)
    with pytest.raises(InputError, match=r"nowhere\.csv: no such file"):
        tables.read_rows(tmp_path / "nowhere.csv")


@pytest.fixture
def scored(clip, tmp_path, capsys):
    """Run ``benchmark --table`` on a table beside four clips: (exit code, printed, complaints, JSON)."""
    for name, seed in (("a", 0), ("b", 1), ("c", 2)):
        audio.write_audio(tmp_path / f"{name}.wav", clip(1.0, seed), sample_rate=22_050)
    sf.write(tmp_path / "silent.wav", np.zeros(22_050), 22_050)
    file = tmp_path / "made.json"

    def run(*rows: str):
        (tmp_path / "table.csv").write_text("\n".join(["content,style,truth,output", *rows]))
        arguments = ["benchmark", "--table", str(tmp_path / "table.csv"), "-o", str(file)]
        code = main(arguments)
        captured = capsys.readouterr()
        made = json.loads(file.read_text()) if file.exists() else None
        return code, captured.out, captured.err.splitlines(), made

    return run


def test_a_bad_row_among_good_ones_is_named_and_the_others_are_kept(scored, tmp_path):
    (tmp_path / "text.wav").write_text("no sound\n" * 99)
    sf.write(tmp_path / "short.wav", 0.1 * np.sin(np.arange(9_000)), 22_050)
    code, printed, complaints, made = scored(
        "a.wav,b.wav,c.wav,a.wav", "a.wav,silent.wav,,b.wav", "a.wav,b.wav,,", "a.wav,b.wav,,gone.wav",
        "text.wav,b.wav,,a.wav", f"a.wav,{'x' * 300}.wav,,a.wav", "a.wav,b.wav,short.wav,a.wav",
        "b.wav,a.wav,,short.wav",
    )  # fmt: skip
    assert code == 1 and "n" in made["splits"]["files"]["summary"]["output"]["LSD"]
    table = f"audiostyle: {tmp_path / 'table.csv'}, line"
    expected = {
        3: "silent",
        4: "no output",
        5: "no such file",
        6: "not readable",
        7: "too long",
        8: "lasts 0.41 s",
    }
    assert [line.split(":")[1].split()[-1] for line in complaints] == [str(n) for n in expected]
    for complaint, (line, reason) in zip(complaints, expected.items(), strict=True):
        assert complaint.startswith(f"{table} {line}: ") and reason in complaint
    assert [f["line"] for f in made["facts"]["failed"]] == list(expected)
    assert all(f["reason"] in c for f, c in zip(made["facts"]["failed"], complaints, strict=True))
    assert made["facts"]["lines"] == [2, 9] and len(made["splits"]["files"]["items"]["output"]) == 2
    assert "LSD" in printed and "output" in printed


def test_a_table_of_which_nothing_can_be_scored_writes_nothing(scored):
    code, printed, complaints, made = scored("a.wav,silent.wav,,a.wav")
    assert (code, printed, made) == (2, "", None) and len(complaints) == 1


def test_a_row_that_stands_twice_is_said(scored):
    code, _, complaints, made = scored(
        "a.wav,b.wav,,c.wav", "b.wav,b.wav,,c.wav", "a.wav,b.wav,,c.wav"
    )
    assert code == 0 and len(made["facts"]["lines"]) == 3
    assert len(complaints) == 1 and "line 4: the same files as in line 2" in complaints[0]


def test_scores_are_saved_where_they_cannot_be_printed(scored, monkeypatch):
    def broken(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr(benchmark, "describe", broken)
    code, _, complaints, made = scored("a.wav,b.wav,,c.wav")
    assert (code, complaints) == (141, []) and made["facts"]["lines"] == [2]


def test_an_interruption_keeps_what_was_scored(scored, monkeypatch):
    score = benchmark.score
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(*arguments)

    monkeypatch.setattr(benchmark, "score", interrupted)
    code, printed, complaints, made = scored(
        "a.wav,b.wav,,c.wav", "b.wav,a.wav,,c.wav", "c.wav,a.wav,,b.wav"
    )
    assert (code, printed, complaints) == (130, "", ["audiostyle: interrupted"])
    assert made["facts"]["lines"] == [2, 3] and len(made["splits"]["files"]["items"]["output"]) == 2


@pytest.mark.parametrize("output", ["nowhere/b.json", ".", "pipe", "/dev/null"])
def test_a_place_that_cannot_be_written_is_refused_before_the_scoring(
    tmp_path, monkeypatch, capsys, output
):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tables, "read_rows", pytest.fail)
    assert main(["benchmark", "--table", "t.csv", "-o", output]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"audiostyle: {output}: ")
    assert (
        sorted(p.name for p in tmp_path.iterdir()) == ["pipe"]
        and Path("/dev/null").is_char_device()
    )
