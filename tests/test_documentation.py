"""What the documents say is so: commands parse, links and files exist, figures are those of the shipped detector."""

import ast
import hashlib
import importlib.util
import json
import math
import re
import shlex
import subprocess
import sys
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
PAGES = sorted([*ROOT.glob("*.md"), *DOCS, CARD, ROOT / "datasets/README.md"])
PROGRAMS = sorted([*ROOT.glob("tools/*.py"), *ROOT.glob("benchmarks/*.py")])


def text_of(path):
    text = path.read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(text)) if path.suffix == ".py" else text
    return text.replace("\\\n", " ")


def commands():
    """Return (page, program, arguments) for every command line of the documents and docstrings."""
    pattern = re.compile(r"^\s*\.venv/bin/python ((?:tools|benchmarks)/\w+\.py)(.*)$", flags=re.MULTILINE)
    return [(page.name, *match) for page in [*PAGES, *PROGRAMS] for match in pattern.findall(text_of(page))]


@pytest.fixture(scope="module")
def parsers():
    found = {}
    for program in PROGRAMS:
        spec = importlib.util.spec_from_file_location(f"{program.stem}_documented", program)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look themselves up
        spec.loader.exec_module(module)
        found[program.relative_to(ROOT).as_posix()] = module.build_parser()
    return found


@pytest.mark.parametrize(("page", "program", "arguments"), commands())
def test_a_command_of_the_documents_can_be_given(parsers, page, program, arguments):
    # A pipe or a second command behind it is the shell's.
    parsers[program].parse_args(shlex.split(re.split(r"[|;&>]", arguments)[0]))


def test_the_commands_that_train_the_shipped_detector_can_be_given(parsers):
    recipe = subprocess.run(
        ["make", "--dry-run", "train-fracatlas"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = re.findall(
        r"\.venv/bin/python (tools/\w+\.py)(.*?)(?:\|\||$)", recipe.stdout.replace("\\\n", " "), flags=re.MULTILINE
    )
    trained = [parsers[program].parse_args(shlex.split(rest)) for program, rest in found if "build_" not in program]
    configs = [arguments.config_file for arguments in trained if hasattr(arguments, "config_file")]
    assert sorted(configs) == sorted(f"configs/shipped/{path.name}" for path in (ROOT / "configs/shipped").iterdir())


def test_every_program_is_shown_with_a_command():
    assert {program for _, program, _ in commands()} == {path.relative_to(ROOT).as_posix() for path in PROGRAMS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files_that_exist(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configurations_and_make_targets_of_a_page_exist(page):
    text = page.read_text(encoding="utf-8")
    configs = set(re.findall(r"configs/[\w/]+\.yaml", text))
    assert [name for name in configs if not (ROOT / name).is_file()] == []
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"^ +make ([a-z-]+)", text, flags=re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", [*ROOT.glob("docs/*.md"), ROOT / "datasets/README.md"], ids=lambda page: page.name)
def test_a_page_begins_with_a_sentence_and_a_command(page):
    blocks = [block for block in re.sub("<!--.*?-->", "", page.read_text()).split("\n\n") if block.strip()]
    assert blocks[0].startswith("# ")
    assert re.fullmatch(r"[A-Z][^|#]+[.:]", blocks[1].replace("\n", " ").strip()), "one sentence"
    assert blocks[2].startswith("    "), "one command"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_form_of_a_detector_is_in_the_documents():
    text = (ROOT / "docs/prediction.md").read_text(encoding="utf-8")
    table = text.partition("## What a detector can be")[2].partition("\n## ")[0]
    assert [scheme for scheme in ["shipped", *(f"{name}:" for name in DETECTORS)] if f"`{scheme}" not in table] == []


def test_nms_of_the_shipped_detector_cannot_be_set_as_the_documents_say():
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert "only `d2:` detectors, and ensembles of them, have this setting" in text
    with pytest.raises(DetectorError, match="has no setting nms_iou"):
        open_service(Settings.from_environ({"FRACTURE_NMS_IOU": "0.4"}))


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
    report = set(interval.findall((ROOT / "docs/fracatlas.md").read_text(encoding="utf-8")))
    assert len(report) > 50
    for page in (ROOT / "README.md", CARD):
        figures = set(interval.findall(page.read_text(encoding="utf-8")))
        assert len(figures) >= 8
        assert figures - report == set(), page.name


def test_the_report_in_the_documents_names_the_shipped_detector():
    text = (ROOT / "docs/fracatlas.md").read_text(encoding="utf-8")
    assert f" {shipped_sha256()[:8]} was tested on " in text


def test_every_picture_of_the_documents_has_its_command():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Pictures")[2].partition("\n## ")[0]
    names = [path.name for path in (ROOT / "docs").iterdir() if path.suffix in (".png", ".svg")]
    assert [name for name in names if f"`{name}`" not in text] == []


# Words that the glossary replaced -> where one may still stand, beside its successor.
FORMER_WORDS = {
    r"\brivals?\b": (),
    r"\b(?:one|two|four|\d) looks?\b": (),
    r"\bhouse\b": (),
    r"\bjudges?\b": ("docs/evaluation.md",),  # the verb, of a reader
    r"\bfused:|\bfusion\.json\b|(?<!_)\bfloat\.json\b": ("docs/prediction.md",),
    r"\bTILT\b": ("docs/notes/training.md",),
    r"--site-columns": (),
}


@pytest.mark.parametrize("word", FORMER_WORDS)
def test_one_word_per_idea(word):
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]
    found = [page.relative_to(ROOT).as_posix() for page in pages if re.search(word, page.read_text(encoding="utf-8"))]
    assert [name for name in found if name not in FORMER_WORDS[word]] == []
