"""What is written from a report: all of it, the same everywhere, safe, and readable back."""

import csv
import re
from dataclasses import asdict, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest

from fracture_det.evaluation.report import Estimate, ReliabilityBin, Report
from fracture_det.reporting.blocks import Figure, SideBySide
from fracture_det.reporting.html import html
from fracture_det.reporting.markdown import escaped, markdown, marked
from fracture_det.reporting.sections import sections
from fracture_det.reporting.writer import write_report
from tests.reporting.pages import Page, from_markdown, sources
from tests.reporting.reports import HOSTILE, bare, draw_crops, realistic

ROOT = Path(__file__).parents[2]
WRITTEN = {
    "report.json", "report.html", "report.md", "per_anatomy.csv", "strata.csv", "MODEL_CARD.md", "CLAIM_2024.md",
    "TRIPOD_AI.md",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("report")
    draw_crops(realistic(), target)
    write_report(realistic(), target)
    return target


@pytest.fixture(scope="module")
def bare_folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("bare")
    write_report(bare(), target)
    return target


@pytest.fixture(scope="module")
def pages(folder):
    return {
        "report.html": Page((folder / "report.html").read_text(encoding="utf-8")),
        "report.md": from_markdown((folder / "report.md").read_text(encoding="utf-8")),
    }


# --- every figure is there -------------------------------------------------------------------------------------------


def short(value):
    """The report's number format, written independently: .744, 1.000, 2.250."""
    return re.sub(r"^0(?=\.)", "", f"{value:.3f}")


def walk(value, path=()):
    """Yield every Estimate of a report with the names that lead to it."""
    if isinstance(value, Estimate):
        yield path, value
    elif isinstance(value, ReliabilityBin):
        if value.n:  # an empty bin says "0" and has no share
            yield from walk(value.rate, (*path, "rate"))
    elif is_dataclass(value):
        for each in fields(value):
            yield from walk(getattr(value, each.name), (*path, each.name))
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from walk(each, (*path, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from walk(each, (*path, index))


def said_of(figure, path=("",)):
    """Return what must be read of a figure, in one piece, as it stands in a table."""
    if figure.value is None:
        return f"not defined: {figure.reason}"
    said = short(figure.value)
    if figure.low is not None:
        said += f" ({short(figure.low)} to {short(figure.high)})"
    if figure.n is not None and figure.n < 30:
        said += " †"
    if path[0] == "robustness":  # the setting stands between
        return said
    if figure.count is not None:
        said += f" {figure.count:,}/{figure.n:,}"
    elif figure.n is not None:
        said += f" n = {figure.n:,}"
    if figure.wilson_low is not None and path[0] != "strata":  # there in strata.csv
        said += f", W {short(figure.wilson_low)} to {short(figure.wilson_high)}"
    if figure.undefined:
        said += f", ‡{figure.undefined}" if figure.n is not None else f" ‡{figure.undefined}"
    return said


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_every_figure_of_the_report_is_on_the_page_with_its_interval_and_count(pages, name):
    figures = [(path, said_of(figure, path)) for path, figure in walk(realistic())]
    assert len(figures) > 300
    cells = {cell for table in pages[name].tables for row in table.rows for cell in row}
    # What follows a figure of robustness in its cell is the setting; the untouched one stands below the table.
    there = [said in (pages[name].text if path[0] == "robustness" else cells) for path, said in figures]
    assert [figure for figure, found in zip(figures, there, strict=True) if not found] == []


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_counts_thresholds_times_and_reasons_are_on_the_page(pages, name):
    report, text = realistic(), pages[name].text
    expected = [f"{value:,}" for value in report.counts.values()]
    expected += [short(point.score) for point in report.operating_points]
    expected += [str(value) for point in report.operating_points for value in asdict(point.counts).values()]
    expected += [point.origin for point in report.operating_points] + list(report.not_reached.values())
    expected += [f"+{short(one.delta_ap50)}" for one in report.errors.types.values() if one.delta_ap50]
    expected += [str(one.count) for one in report.errors.types.values()]
    expected += [f"{stage.median_ms:.1f}" for stage in report.timing.stages.values()]
    expected += [f"{stage.p95_ms:.1f}" for stage in report.timing.stages.values()]
    expected += [report.timing.machine, "1.84", "1,843 MB"]
    expected += [short(item.score) for item in report.errors.gallery if item.score is not None]
    expected += [item.file_name for item in report.errors.gallery]
    expected += [*report.about.values(), *report.failures, *report.failures.values(), *report.notes]
    expected += [row.setting for row in report.robustness]
    assert [one for one in expected if " ".join(one.split()) not in text] == []


def test_a_cell_stands_in_its_row_and_below_its_heading(pages):
    headings = {
        "precision": "Precision",
        "recall": "Recall",
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
    }
    for page in pages.values():
        rows = page.table("Performance by body part").by_name
        for row in realistic().strata:
            line = rows[row.value]
            assert (line["Images"], line["Fractured"], line["Lesions"]) == (
                str(row.n_images),
                str(row.n_fractured),
                str(row.n_boxes),
            )
            for name, figure in row.figures.items():
                assert line[headings.get(name, name)] == said_of(figure, ("strata",))
        images = page.table("Images at each operating point").by_name
        for point in realistic().operating_points:
            line = next(cells for name, cells in images.items() if name.endswith(short(point.score)))
            assert line["Sensitivity"] == said_of(point.image["sensitivity"])
            assert line["NPV"] == said_of(point.image["npv"])


def test_markdown_and_html_have_the_same_tables(pages):
    shown = [one for one in pages["report.html"].tables if one.caption]  # galleries are pictures there
    other = {one.caption: one for one in pages["report.md"].tables}
    assert len(shown) >= 20
    for table in shown:
        assert table.header == other[table.caption].header, table.caption
        assert table.rows == other[table.caption].rows, table.caption


# --- the page stands alone -------------------------------------------------------------------------------------------


def test_a_hostile_file_name_stays_a_text(folder, pages):
    for name, page in pages.items():
        assert "script" not in {tag for tag, _ in page.tags}, name
        assert not {attribute for _, found in page.tags for attribute in found if attribute.startswith("on")}, name
        assert " ".join(HOSTILE.split()) in page.text, name
        assert "<b>oblique</b>" in page.text, name
    card = from_markdown((folder / "MODEL_CARD.md").read_text(encoding="utf-8"))
    assert {"script", "b", "i"}.isdisjoint(tag for tag, _ in card.tags)
    for checklist in ("CLAIM_2024.md", "TRIPOD_AI.md"):
        read = from_markdown((folder / checklist).read_text(encoding="utf-8"))
        assert {"script", "b", "i"}.isdisjoint(tag for tag, _ in read.tags)


def test_the_page_fetches_nothing(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert [one for one in sources(text) if not one.startswith(("data:", "#"))] == []
    assert len(re.findall("data:image/jpeg;base64,", text)) == len(realistic().errors.gallery)
    assert "default-src 'none'" in text


def test_ids_are_unique_and_links_lead_somewhere(folder, pages):
    page = pages["report.html"]
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link[1:] in page.ids if link.startswith("#") else (folder / link).is_file(), link
    targets = [found.get("aria-labelledby") for _, found in page.tags if found.get("aria-labelledby")]
    assert set(targets) <= set(page.ids)


@pytest.mark.parametrize("name", ["report.md", "MODEL_CARD.md", "CLAIM_2024.md", "TRIPOD_AI.md"])
def test_links_and_pictures_of_markdown_lead_somewhere(folder, pages, name):
    text = (folder / name).read_text(encoding="utf-8")
    page = from_markdown(text)
    pictures = [str(found["src"]) for tag, found in page.tags if tag == "img"]
    for link in [*page.links, *pictures]:
        if not link.startswith("https://doi.org/"):
            path, _, anchor = link.partition("#")
            assert (folder / path).is_file(), link
            assert not anchor or anchor in pages["report.html"].ids, link
    assert name != "report.md" or {f"gallery/sheet-{kind}.jpg" for kind in ("miss", "hit", "false-positive")} < {
        *pictures
    }


def test_tables_have_captions_scopes_and_names_for_what_is_drawn(pages):
    page = pages["report.html"]
    assert {found.get("scope") for tag, found in page.tags if tag == "th"} == {"col", "colgroup", "row", "rowgroup"}
    assert all(found.get("aria-label") for tag, found in page.tags if tag == "svg")
    assert all(found.get("alt") for tag, found in page.tags if tag == "img")
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


# --- what is written -------------------------------------------------------------------------------------------------


def drawings(report):
    for section in sections(report):
        for block in section.blocks:
            yield from (
                each
                for each in (block.blocks if isinstance(block, SideBySide) else [block])
                if isinstance(each, Figure)
            )


def test_everything_promised_is_written(folder, bare_folder):
    for target, report in ((folder, realistic()), (bare_folder, bare())):
        assert {path.name for path in target.iterdir() if path.is_file()} == WRITTEN
        names = {"overview", "roc", *(drawing.name for drawing in drawings(report))}
        drawn = {path.name for path in (target / "figures").iterdir()}
        assert drawn == {f"{name}{suffix}" for name in names for suffix in (".png", ".svg")}


def test_the_same_report_gives_the_same_bytes_also_when_drawn_again_from_its_json(folder, tmp_path):
    report = Report.load(folder)
    assert report == realistic()
    draw_crops(report, tmp_path)
    write_report(report, tmp_path)
    first = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert [name for name in first if first[name] != again.get(name)] == []
    assert first.keys() == again.keys()


def test_a_figure_that_the_report_no_longer_has_is_removed(folder, tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("robustness.png", "robustness.svg", "errors.svg", "mine.png"):
        (tmp_path / "figures" / name).write_bytes(b"old")
    write_report(bare(), tmp_path)
    left = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"robustness.png", "robustness.svg"}.isdisjoint(left)
    assert (tmp_path / "figures" / "mine.png").read_bytes() == b"old"
    assert (tmp_path / "figures" / "errors.svg").read_bytes() != b"old"


@pytest.mark.parametrize(
    ("name", "keys", "chosen"),
    [
        ("strata.csv", ["column", "value"], lambda row: True),
        ("per_anatomy.csv", ["anatomy"], lambda row: row.column in ("all", "anatomy")),
    ],
)
def test_csvs_read_back_equal(folder, name, keys, chosen):
    with (folder / name).open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    rows = [row for row in realistic().strata if chosen(row)]
    assert len(lines) == len(rows)
    assert list(lines[0])[: len(keys)] == keys
    for line, row in zip(lines, rows, strict=True):
        assert [line[key] for key in keys] == [row.column, row.value][-len(keys) :]
        assert [int(line[f"n_{size}"]) for size in ("images", "fractured", "boxes")] == [
            row.n_images,
            row.n_fractured,
            row.n_boxes,
        ]
        read = {
            name: estimate(line, name)
            for name in ("AP50", "precision", "recall", "sensitivity", "specificity", "AUROC")
        }
        assert {name: figure for name, figure in read.items() if figure} == row.figures


def estimate(line, name):
    """Return the Estimate that a line holds, or None where the figure does not apply."""
    if not line[f"{name}_undefined"]:
        return None
    floats = [
        float(cell) if (cell := line[name + end]) else None
        for end in ("", "_low", "_high", "_wilson_low", "_wilson_high")
    ]
    whole = [int(cell) if (cell := line[name + end]) else None for end in ("_count", "_n", "_undefined")]
    return Estimate(*floats, *whole, line[f"{name}_reason"] or None)


# --- degenerate reports ----------------------------------------------------------------------------------------------


def test_what_was_not_run_is_said_in_a_sentence(bare_folder):
    page = Page((bare_folder / "report.html").read_text(encoding="utf-8"))
    for sentence in (
        "Not measured: run with --robustness.",
        "Not measured: the predictions were read from a file; run with --detector.",
        "None: every image was read and predicted.",
        "There is no healthy image.",
        "No examples: there is no box at the main operating point, and no missed fracture.",
        "Every image is its own group: the figures of groups equal those of images.",
        "How to read a cell: the figure with no interval",
        "No confidence intervals were computed, so the uncertainty of these figures is unknown.",
        "Sensitivity is not defined: no fractured image.",
    ):
        assert sentence in page.text, sentence


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_every_undefined_figure_of_a_bare_report_says_why(bare_folder, name):
    text = (bare_folder / name).read_text(encoding="utf-8")
    page = Page(text) if name.endswith("html") else from_markdown(text)
    cells = [cell for table in page.tables for row in table.rows for cell in row]
    # Each group is one image here, and its figures at an operating point are there once, as those of images.
    undefined = [figure for path, figure in walk(bare()) if figure.value is None and "group" not in path[1:]]
    assert len(undefined) > 40
    assert {f"not defined: {figure.reason}" for figure in undefined} <= {*cells}
    assert {"nan", "None", "NaN"}.isdisjoint(page.text.split())


def test_galleries_without_pictures_are_tables(folder, tmp_path):
    (tmp_path / "figures").symlink_to(folder / "figures")
    page = Page(html(realistic(), tmp_path))
    assert "img" not in {tag for tag, _ in page.tags}
    files = [row[1] for table in page.tables if "File" in table.header for row in table.rows]
    assert files == [" ".join(item.file_name.split()) for item in realistic().errors.gallery]
    assert "gallery/" not in markdown(realistic(), tmp_path)


def test_a_report_of_one_group_per_image_shows_its_operating_points_once():
    report = realistic()
    shown = [table.caption for table in from_markdown(markdown(report)).tables]
    assert "Groups at each operating point" in shown
    alike = replace(report, counts={**report.counts, "groups": report.counts["images_predicted"]})
    assert "Groups at each operating point" not in [table.caption for table in from_markdown(markdown(alike)).tables]


ESCAPES = [
    # text, as Markdown shows it once more
    ("plain_name.png", "plain_name.png"),
    ("_leading_ and __init__", "_leading_ and __init__"),
    ("a|b", "a|b"),
    ("*x* ~~y~~ `z`", "*x* ~~y~~ `z`"),
    ("<img src=x>", "<img src=x>"),
    ("&lt;", "&lt;"),
    ("$a$ [b](c) \\d", "$a$ [b](c) \\d"),
    ("two\nlines", "two lines"),
]


@pytest.mark.parametrize(("text", "shown"), ESCAPES)
def test_markdown_shows_a_text_as_it_is_alone_and_in_a_table(text, shown):
    assert from_markdown(escaped(text)).text == shown
    assert from_markdown(f"| head |\n| --- |\n| {escaped(text)} |").text == f"head {shown}"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("run with `--val`, or not", "run with `--val`, or not"),
        ("in `a_b*c.csv`.", "in `a_b*c.csv`."),
        ("`a` `b`", "`a` `b`"),
        ("a *b*", r"a \*b\*"),
        ("", ""),
    ],
)
def test_code_in_a_text_keeps_its_spaces(text, written):
    assert marked(text) == written
