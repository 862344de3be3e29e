"""Facts in the documents are those of the code and of the shipped detector, to whose hash its figures are bound."""

import hashlib
import json
import math
import re
from pathlib import Path

import pytest
import yaml

from fracture_det.inference.base import DetectorError
from fracture_det.inference.registry import DETECTORS
from webapp.app import open_service
from webapp.settings import Settings

ROOT = Path(__file__).parents[1]
DOCS = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("docs/notes/*.md")])
SHIPPED = ROOT / "weights" / "shipped"
CARD = SHIPPED / "MODEL_CARD.md"


def test_every_form_of_a_detector_is_in_the_documents():
    text = (ROOT / "docs/prediction.md").read_text(encoding="utf-8")
    table = text.partition("## What a detector can be")[2].partition("\n## ")[0]
    assert [scheme for scheme in ["shipped", *(f"{name}:" for name in DETECTORS)] if f"`{scheme}" not in table] == []


def test_nms_of_the_shipped_detector_cannot_be_set_as_the_documents_say(monkeypatch):
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert "only `d2:` detectors, and ensembles of them, have this setting" in text
    monkeypatch.setenv("FRACTURE_NMS_IOU", "0.4")
    with pytest.raises(DetectorError, match="nms_iou"):
        open_service(Settings.from_environ())


# configuration: strides of the feature maps that its anchors lie on
ANCHOR_STRIDES = {"faster_rcnn_R_50_paper.yaml": [16], "faster_rcnn_R_50_FPN.yaml": [8, 16, 32, 64]}


@pytest.mark.parametrize("name", ANCHOR_STRIDES)
def test_numbers_of_anchors_are_those_of_the_configurations(name):
    anchors = yaml.safe_load((ROOT / "configs" / name).read_text())["MODEL"]["ANCHOR_GENERATOR"]
    sizes, ratios = anchors["SIZES"], anchors["ASPECT_RATIOS"][0]
    strides = ANCHOR_STRIDES[name]
    assert len(sizes) == len(strides)
    # On an 800 px square a map of stride s has ceil(800 / s) squared positions: 50 ** 2 * 9 = 22,500 for the paper.
    positions = [math.ceil(800 / stride) ** 2 for stride in strides]
    total = sum(count * len(own) * len(ratios) for count, own in zip(positions, sizes, strict=True))
    assert (
        name.endswith("paper.yaml") or f"{total:,} on an 800 px square" in (ROOT / "docs/notes/exports.md").read_text()
    )
    row = next(line for line in (ROOT / "docs/data.md").read_text().splitlines() if line.startswith(f"| `{name}`"))
    assert row.endswith(f"{len(sizes[0])} sizes x {len(ratios)} ratios = {len(sizes[0]) * len(ratios)} | {total:,} |")


def sha256_of(*paths):
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def shipped_sha256():
    """Return the hash of the shipped ensemble as EnsembleDetector computes it, from the files alone."""
    config = next(SHIPPED / name for name in ("ensemble.json", "fusion.json") if (SHIPPED / name).is_file())
    ensemble = json.loads(config.read_text())
    folders = [SHIPPED / member.partition(":")[2] for member in ensemble["members"]]
    members = [sha256_of(folder / "model.xml", folder / "model.bin") for folder in folders]
    return hashlib.sha256(json.dumps([ensemble["orientations"], ensemble["iou"], members]).encode()).hexdigest()


MEASURED_WITH = re.compile(r"^<!-- measured-with: (.+?) -->$", flags=re.MULTILINE)
# What only a measurement gives: an interval, a figure of a detector's quality, a time, an amount of memory, a rate.
FIGURE = re.compile(
    r"\d \(-?[.\d]+ to [+-]?[.\d]+\)|\bAP50 \.\d|\bAUROC \.\d"
    r"|\d (?:ms|MB|GB|MiB|GFLOP)\b|\d per second|\d times as fast"
)
# Not measurements: settings, sizes of downloads, and the examples of the API.
UNMEASURED = {
    ("README.md", "Two commands"),
    ("docs/api.md", "Upload"),
    ("docs/deployment.md", "Containers"),
    ("CONTRIBUTING.md", "Measured figures"),
}


def sections(page):
    """Yield (heading, text) of a page's sections; what stands above the first `##` is under the page's title."""
    for part in re.split(r"^(?=##? )", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        heading, _, text = part.partition("\n")
        if text.strip():
            yield heading.lstrip("# "), text


def measured_sections():
    """Yield (page, heading, text, source): what each marked section was measured with; a title's mark is the page's."""
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]:
        name, of_page = page.relative_to(ROOT).as_posix(), None
        for index, (heading, text) in enumerate(sections(page)):
            if (name, heading) in UNMEASURED:
                continue
            marks = MEASURED_WITH.findall(text)
            assert len(marks) <= 1, f"{name}, {heading}: more than one mark"
            of_page = marks[0] if marks and index == 0 else of_page
            yield name, heading, text, marks[0] if marks else of_page


def test_the_hash_of_the_shipped_files_is_the_one_that_the_detector_has():
    # The calibration is refused by a detector with another hash.
    assert shipped_sha256() in (SHIPPED / "calibration.json").read_text()


def test_every_section_with_figures_says_what_they_were_measured_with():
    bare = [
        (page, heading, FIGURE.search(text)[0])
        for page, heading, text, source in measured_sections()
        if source is None and FIGURE.search(text)
    ]
    assert bare == []


def test_figures_of_the_shipped_detector_were_measured_with_the_shipped_files():
    found = {(page, heading): source for page, heading, _, source in measured_sections() if source}
    shipped = {place: source.removeprefix("detector ") for place, source in found.items() if "detector " in source}
    shipped = {place: digits for place, digits in shipped.items() if digits != "no detector"}
    assert len(shipped) >= 8
    assert {place: digits for place, digits in shipped.items() if digits != shipped_sha256()[:12]} == {}
    floats = {place: source.split()[1:] for place, source in found.items() if source.startswith("float ")}
    own = [sha256_of(SHIPPED / name / "model.safetensors")[:12] for name in ("resnet", "efficientnet")]
    assert {place: digits for place, digits in floats.items() if digits != own} == {}
    assert f"SHA-256 `{shipped_sha256()[:12]}…`" in CARD.read_text(encoding="utf-8")


def test_figures_of_other_detectors_say_so_beside_them():
    words = {"earlier": "of an earlier detector", "candidates": "candidate"}
    kinds = set()
    for page, heading, text, source in measured_sections():
        kind, _, digits = (source or "").partition(" ")
        kinds |= {kind}
        if kind in words:
            assert words[kind] in " ".join(text.split()), f"{page}, {heading}: say {words[kind]!r}"
        if kind == "earlier":
            assert re.fullmatch("[0-9a-f]{12}", digits), f"{page}, {heading}: {source}"
            assert digits != shipped_sha256()[:12], f"{page}, {heading}: is the shipped detector"
    assert kinds <= {"", "detector", "float", "earlier", "candidates", "no"}


def test_figures_of_the_readme_and_of_the_card_are_those_of_the_report():
    interval = re.compile(r"\.\d{3} \(\.\d{3} to 1?\.\d{3}\)")
    pages = ("docs/fracatlas.md", "docs/sources.md")
    report = {figure for page in pages for figure in interval.findall((ROOT / page).read_text(encoding="utf-8"))}
    assert len(report) > 50
    for page in (ROOT / "README.md", CARD):
        figures = set(interval.findall(page.read_text(encoding="utf-8")))
        assert len(figures) >= 8
        assert figures - report == set(), page.name


def test_the_report_in_the_documents_names_the_shipped_detector():
    text = (ROOT / "docs/fracatlas.md").read_text(encoding="utf-8")
    assert f" {shipped_sha256()[:8]} was evaluated on " in text


def test_every_picture_of_the_documents_has_its_command():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Pictures")[2].partition("\n## ")[0]
    names = [path.name for path in (ROOT / "docs").iterdir() if path.suffix in (".png", ".svg")]
    assert [name for name in names if f"`{name}`" not in text] == []
