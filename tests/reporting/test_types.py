"""The section on types of fracture: all of it, the same in HTML and Markdown, and only where there are types."""

import re
from dataclasses import replace

import pytest

from fracture_det.evaluation.report import Report
from fracture_det.reporting.sections import sections
from fracture_det.reporting.types import FIGURES
from fracture_det.reporting.writer import write_report
from tests.reporting.pages import Page, from_markdown
from tests.reporting.reports import realistic
from tests.reporting.test_writer import said_of, short, walk
from tests.reporting.typed_report import typed_report, types_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("typed")
    write_report(typed_report(), target)
    return target


@pytest.fixture(scope="module")
def pages(folder):
    return {
        "report.html": Page((folder / "report.html").read_text(encoding="utf-8")),
        "report.md": from_markdown((folder / "report.md").read_text(encoding="utf-8")),
    }


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_every_figure_of_the_types_is_on_the_page_but_for_answers_never_given(pages, name):
    cells = {cell.lstrip("+") for table in pages[name].tables for row in table.rows for cell in row}
    figures = [
        (path, re.sub(r"-0(?=\.)", "-", said_of(figure)))
        for path, figure in walk(types_of(typed_report()))
        if path[0] != "confusion" or figure.count
    ]
    assert len(figures) > 60
    assert [figure for figure in figures if figure[1] not in cells] == []


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_an_answer_stands_below_its_true_type_and_chance_beside_the_detector(pages, name):
    types = types_of(typed_report())
    row = pages[name].table("Answers against chance").by_name["Accuracy"]
    one = types.fractured["accuracy"]  # the second part of the table
    assert row["Detector"] == said_of(one.detector)
    assert row["Chance"] == said_of(one.chance)
    above = pages[name].table("Answers above a confidence").by_name[".450"]
    assert above["Chosen by"] == "accuracy 0.8 on val.json"
    assert above["Accuracy"] == said_of(types.above[-1].accuracy)
    assert "hairline" in pages[name].table("Answers by type").by_name
    assert short(0.45) in pages[name].text


def test_html_and_markdown_say_the_same(pages):
    other = {one.caption: one for one in pages["report.md"].tables}
    assert {"Answers to each true type", "Boxes by type"} <= {one.caption for one in pages["report.html"].tables}
    for table in pages["report.html"].tables:
        if table.caption in other:
            assert table.rows == other[table.caption].rows, table.caption


def test_its_figures_are_written_and_removed_again(folder, tmp_path):
    names = {f"{name}{suffix}" for name in FIGURES for suffix in (".png", ".svg")}
    assert names <= {path.name for path in (folder / "figures").iterdir()}
    write_report(typed_report(), tmp_path)
    write_report(realistic(), tmp_path)
    assert names.isdisjoint(path.name for path in (tmp_path / "figures").iterdir())


def test_without_types_there_is_no_section():
    assert "types" in {section.id for section in sections(typed_report())}
    assert "types" not in {section.id for section in sections(realistic())}


def test_a_report_with_types_is_read_back_and_written_alike(folder, tmp_path):
    assert Report.load(folder) == typed_report()
    write_report(Report.load(folder), tmp_path)
    for name in ("report.html", "report.md", "report.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_why_no_confidence_was_frozen_is_said(tmp_path):
    types = types_of(typed_report())
    report = replace(typed_report(), types=replace(types, above=types.above[:-1], not_reached="too few"))
    (section,) = (section for section in sections(report) if section.id == "types")
    assert "No confidence was frozen on validation data: too few." in str(section.blocks)
    report = replace(report, types=replace(report.types, not_reached=None))
    (section,) = (section for section in sections(report) if section.id == "types")
    assert "run with `--val`" in str(section.blocks)


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_the_subgroups_by_type_have_a_heading_in_words(pages, name):
    assert "type" in {row.column for row in typed_report().strata}
    assert "Type of fracture" in pages[name].text
