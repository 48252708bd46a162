"""Every number in the notebooks' prose stands in an output or in the code of its notebook."""

import json
import re
from pathlib import Path

import pytest

from audiostyle_lib import paths
from audiostyle_lib.config import AudioConfig
from audiostyle_lib.course.plots import TOP_DB
from audiostyle_lib.course.prose import MAX_COLUMNS
from audiostyle_lib.signal.features import FLOOR_DB

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("[01]*.ipynb"))
MAX_LINES = 25  # of an output, which is to be read at a glance
HIDDEN = {"bookkeeping", "prose", "solution"}  # tags of cells whose source is collapsed
# Those that the report prints about its own results and settings, and that are not in our code.
REPORT = {0.0414, 0.1431, 0.6797, 0.9294, 0.9337, 0.95, 0.9596, 0.9759, 0.98, 14, 30}
# Of the front end and its plots.
PARAMETERS = {*AudioConfig().to_dict().values(), -FLOOR_DB, TOP_DB}
NUMBER = re.compile(r"(?<![\w.,])[-−+]?(\d{1,3}(?:[\u202f\u00a0 ]\d{3})+|\d+)?(\.\d+)?(?![\w])")
# What a number in a text can be besides a result.
NOT_A_RESULT = (
    r"## References.*",  # and all that follows
    r"\$\$.*?\$\$", r"\$[^$\n]+\$", r"```.*?```", r"`[^`\n]*`", r"<code>.*?</code>",
    r"\]\([^)]*\)", r"<[^>]+>", r"(?m)^#+ [^\n]*$", r"(?m)^\s*\d+\. ", r"\[\d+(?:, \d+)*\]",
    r"(?i)\b(?:notebooks?|exercises?|sections?|tiers?|questions?|figs?\.|figures?|tables?|eq\.)"
    r" \d+(?:\.\d+)?(?:(?:,| and| to| or) \d+)*",
    r"\b(?:19|20)\d\d\b",  # years
)  # fmt: skip


def load(path: Path) -> list[dict]:
    return json.loads(path.read_text())["cells"]


def joined(text) -> str:
    return text if isinstance(text, str) else "".join(text)


def tags(cell: dict) -> set[str]:
    return set(cell["metadata"].get("tags", []))


def output_texts(cell: dict) -> list[str]:
    """What an output shows as text: a figure, a player or a widget shows none."""
    texts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "text" in output:
            texts.append(joined(output["text"]))
        elif "text/markdown" in data:
            texts.append(joined(data["text/markdown"]))
        elif set(data) == {"text/plain"}:
            texts.append(joined(data["text/plain"]))
    return texts


def numbers(text: str) -> list[tuple[str, float, int]]:
    """Each number of a sentence that may be a result: as written, its value, and its decimals."""
    found = []
    for pattern in NOT_A_RESULT:
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    for match in NUMBER.finditer(text):
        whole, fraction = match.groups()
        if whole or fraction:
            digits = re.sub(r"\s", "", whole or "0")
            decimals = len(fraction or ".") - 1
            found.append((match.group().strip(), float(digits + (fraction or "")), decimals))
    return found


def evidence(cells: list[dict]) -> list[float]:
    """Numbers that a sentence may rest on: those of outputs other than sentences, and of code."""
    texts = [joined(c["source"]) for c in cells if c["cell_type"] == "code"]
    texts += [t for c in cells if "prose" not in tags(c) for t in output_texts(c)]
    text = re.sub(r"(?<=\d)_(?=\d)", "", "\n".join(texts))
    loose = re.findall(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?|\.\d+", text)
    return [float(x) for x in loose]


def prose(cells: list[dict]) -> list[tuple[str, str]]:
    """(cell id, text) of all that a reader reads as sentences, typed or written by code."""
    found = [(c["id"], joined(c["source"])) for c in cells if c["cell_type"] == "markdown"]
    found += [(c["id"], t) for c in cells if tags(c) & HIDDEN for t in output_texts(c)]
    return found


def stands(value: float, decimals: int, known: list[float], *, percent: bool) -> bool:
    half = 0.5 * 10**-decimals + 1e-9
    scales = (1, 100) if percent else (1,)
    return any(abs(x * scale - value) <= half for x in known for scale in scales)


def unsupported(cells: list[dict]) -> list[str]:
    """The numbers in prose that stand nowhere else, each with its cell."""
    known, missing = [*evidence(cells), *REPORT, *PARAMETERS], []
    for cell, text in prose(cells):
        for written, value, decimals in numbers(text):
            percent = re.search(rf"{re.escape(written)}\s?%", text) is not None
            if not stands(value, decimals, known, percent=percent):
                missing.append(f"{cell}: {written}")
    return missing


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem[:2])
def test_every_number_in_prose_stands_in_an_output(path):
    assert unsupported(load(path)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem[:2])
def test_outputs_are_read_at_a_glance(path):
    for cell in load(path):
        for text in output_texts(cell):
            lines = text.rstrip("\n").splitlines()
            assert len(lines) <= MAX_LINES, f"{cell['id']}: {len(lines)} lines"
            rows = [line for line in lines if line.startswith("|")]
            widths = {line.count("|") - 1 for line in rows}
            assert not rows or max(widths) <= MAX_COLUMNS, f"{cell['id']}: {widths} columns"
            assert not any(set(row) <= set("| ") for row in rows), f"{cell['id']}: a blank row"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem[:2])
def test_bookkeeping_is_collapsed_and_silent(path):
    for cell in (c for c in load(path) if c["cell_type"] == "code"):
        source = joined(cell["source"])
        if ".record_metric(" in source:
            assert "bookkeeping" in tags(cell), f"{cell['id']}: records, so its tag is bookkeeping"
        if ("say(" in source or "prose.say(" in source) and "def " not in source:
            assert tags(cell) & {"prose", "solution"}, f"{cell['id']}: says, so its tag is prose"
        if tags(cell) & HIDDEN:
            assert cell["metadata"].get("jupyter", {}).get("source_hidden"), f"{cell['id']}: shown"
        if "bookkeeping" in tags(cell):
            assert not cell["outputs"], f"{cell['id']}: bookkeeping that prints"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem[:2])
def test_prose_stands_between_code(path):
    run, longest = [], []
    for cell in load(path)[2:]:  # after the title and the parameters
        if cell["cell_type"] == "markdown" or tags(cell) & {"prose", "solution"}:
            run = []
        elif "bookkeeping" not in tags(cell):
            run = [*run, cell["id"]]
            longest = max(longest, run, key=len)
    assert len(longest) <= 2, f"code without a word between: {longest}"


def notebook(source: str, output: str, sentence: str) -> list[dict]:
    code = {"id": "c", "cell_type": "code", "metadata": {}, "source": source,
            "outputs": [{"output_type": "stream", "text": output}]}  # fmt: skip
    return [code, {"id": "m", "cell_type": "markdown", "metadata": {}, "source": sentence}]


@pytest.mark.parametrize(
    "sentence",
    [
        "PCA has 0.841, the network .84.", "It is 84 % of the way.", "There are 21 000 steps.",
        "The report has 0.9337.", "Sections 2 and 3 of 2016, notebook 05, tier 1, Fig. 4 and [7].",
        "With $k = 99$ and `n=98`.", "1. first\n2. second",
    ],
)  # fmt: skip
def test_numbers_that_stand_in_an_output_or_are_no_result(sentence):
    assert unsupported(notebook("steps = 21_000", "R2 0.8412", sentence)) == []


@pytest.mark.parametrize(
    "sentence, missing",
    [
        ("PCA has 0.841.", "0.841"), ("It is 84 % of the way.", "84"),
        ("There are 21 000 steps.", "21 000"), ("It lost 3.5 dB.", "3.5"),
    ],
)  # fmt: skip
def test_a_number_whose_metric_changed_by_a_digit_is_named(sentence, missing):
    assert unsupported(notebook("steps = 22_000", "R2 0.8512", sentence)) == [f"m: {missing}"]


def nudged(text: str, value: float, decimals: int) -> str:
    """`text` with every number that rounds to `value` moved by a digit."""

    def move(match):
        ours = float(match.group())
        if not stands(value, decimals, [ours], percent=True):
            return match.group()
        return f"{ours + 3 * 10**-decimals:.{max(decimals, 4)}f}"

    return re.sub(r"\d+(?:\.\d+)?e[-+]?\d+|\d+\.\d+|\.\d+", move, text)


@pytest.mark.parametrize("path", NOTEBOOKS[2:], ids=lambda p: p.stem[:2])
def test_a_changed_digit_in_a_stored_output_is_noticed(path):
    cells = load(path)
    for cell, text in prose(cells):
        for written, value, decimals in numbers(text):
            if decimals < 2 or stands(value, decimals, list(REPORT), percent=False):
                continue
            changed = json.loads(json.dumps(cells))
            for c in (c for c in changed if c["cell_type"] == "code" and "prose" not in tags(c)):
                c["source"] = nudged(joined(c["source"]), value, decimals)
                for output in c["outputs"]:
                    output["text"] = nudged(joined(output.get("text", "")), value, decimals)
                    if "text/markdown" in output.get("data", {}):
                        shown = joined(output["data"]["text/markdown"])
                        output["data"]["text/markdown"] = nudged(shown, value, decimals)
            assert f"{cell}: {written}" in unsupported(changed)
            return
    pytest.skip("no sentence with a measured decimal")
