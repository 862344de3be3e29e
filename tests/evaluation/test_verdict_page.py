"""verdict.html in a real Chromium, its forest plot, and Holm's correction."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fracture_det.evaluation.gate import holm
from fracture_det.evaluation.gate_rules import RulesError, read_rules
from fracture_det.visualization.margins import FAILS, UNDECIDED, MarginRow, draw_margins
from tests.evaluation.gate_cases import BETTER, CANDIDATE_SHA256, Skill, predict, write_run, write_tests
from tests.evaluation.test_eval_tool import load_tool


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_says_the_verdict_first_and_fits_its_window(browser, verdict_page, width):
    context = browser.new_context(viewport={"width": width, "height": 900}, device_scale_factor=1, offline=True)
    page = context.new_page()
    page.goto(verdict_page.as_uri())
    said = page.locator("body").inner_text().splitlines()
    first = next(line for line in said if line.strip() and line != "Skip to the tables")
    assert first == page.locator("h1").inner_text() == "Do not promote"
    said = page.locator(".summary").inner_text()
    assert said.startswith("detector aaaa stays; detector bbbb does not replace it. Subgroups fall: body part shoulder")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#tests svg").count() == 1
    assert page.locator("#tests table").count() == 2
    if width > 1000 and (folder := os.environ.get("FRACTURE_SHOTS")):
        end = page.locator("#tests .drawing").bounding_box()
        clip = {"x": 260, "y": 0, "width": 1000, "height": end["y"] + end["height"] + 10}
        page.screenshot(path=Path(folder) / "gate.png", clip=clip, full_page=True)
    context.close()


@pytest.fixture(scope="module")
def verdict_page(tmp_path_factory):
    """The page on a candidate that is better, but for the shoulders of one test."""
    folder = tmp_path_factory.mktemp("gate")
    given = []
    for name, truth in write_tests(folder, {"near": 1, "far": 2}).items():
        worse = Skill(hit=-0.2) if name == "far" else BETTER

        def skill(record, worse=worse):
            return worse if record.anatomy == "shoulder" else Skill(hit=3.5, moved=2.0)

        predictions = predict(truth, BETTER, CANDIDATE_SHA256, of_record=skill)
        run = write_run(folder / f"candidate_{name}", predictions, BETTER)
        given += ["--test", name, *map(str, (folder / f"{name}.json", folder / f"served_{name}", run))]
    (folder / "gate.yaml").write_text("bootstrap: 200\n")
    options = ["--config", str(folder / "gate.yaml"), "--out", str(folder / "out")]
    assert load_tool("gate").main([*given, *options, "--skip", "robustness", "speed", "size", "leaks"]) == 1
    return folder / "out" / "verdict.html"


def test_the_figure_shows_what_holds_what_does_not_and_what_is_too_small(tmp_path):
    rows = [
        MarginRow("a test whose name is longer than there is room for"),
        MarginRow("AP50", 0.02, 0.01, 0.03, -0.05, note="better"),
        MarginRow("AUROC", -0.02, -0.04, 0.0, -0.03, FAILS),
        MarginRow("FROC at 1", 0.0, -0.2, 0.2, -0.07, UNDECIDED),
        MarginRow("not there", margin=-0.05, note="not defined"),
    ]
    draw_margins(rows, tmp_path / "a.svg", title="Differences", xlabel="Difference")
    text = (tmp_path / "a.svg").read_text()
    for words in (
        "a test whose name is longer than …",
        "+.020  better",
        "-.020",
        "not defined",
        "does not hold",
        "too small to decide",
        ">margin<",
    ):
        assert words in text
    draw_margins([], tmp_path / "b.svg", title="Differences", xlabel="Difference")
    assert "no difference to draw" in (tmp_path / "b.svg").read_text()


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 x .01; 2 x .03; max(1 x .04, .06)
        ([0.5, 0.9], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted)


def test_rules_state_only_what_differs(tmp_path):
    (tmp_path / "gate.yaml").write_text("margins: {AUROC: .01}\nseed: 3\n")
    rules, own = read_rules(tmp_path / "gate.yaml"), read_rules()
    assert (rules.margins.auroc, rules.seed) == (0.01, 3)
    assert (rules.margins.ap50, rules.strata) == (own.margins.ap50, own.strata)
    assert rules.sha256 != own.sha256
    assert rules.as_dict()["margins"]["FROC@1"] == own.margins.of("FROC@1")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("margins: 3", "margins: expected AP50, AUROC, FROC@1, got 3"),
        ("strata: {margins: {AP50: 2}}", "strata.margins.AP50: expected a number < 1.0, got 2"),
        ("- a", "expected an object"),
        ("a: [", "cannot be read"),
    ],
)
def test_wrong_rules_are_refused_by_file_and_field(tmp_path, text, error):
    (tmp_path / "gate.yaml").write_text(text)
    with pytest.raises(RulesError) as raised:
        read_rules(tmp_path / "gate.yaml")
    assert str(raised.value).startswith(str(tmp_path / "gate.yaml"))
    assert error in str(raised.value)
