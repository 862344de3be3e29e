"""What the documents say can be done: commands parse, links lead somewhere, configurations exist."""

import ast
import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from fracture_det.cli import COMMANDS, JOURNEYS
from fracture_det.cli.train_shipped import RECIPE, read_recipe

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "docs", "docs/notes", "datasets", "weights/shipped")
PAGES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
PROGRAMS = sorted([*ROOT.glob("tools/*.py"), *ROOT.glob("benchmarks/*.py")])
CONSOLE = sorted(ROOT.glob("fracture_det/cli/*.py"))


def text_of(path):
    text = path.read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(text)) if path.suffix == ".py" else text
    return text.replace("\\\n", " ")


def commands():
    """Return (page, program, arguments) for every command line of the documents and docstrings."""
    pattern = re.compile(r"^\s*\.venv/bin/python ((?:tools|benchmarks)/\w+\.py)(.*)$", flags=re.MULTILINE)
    return [(page.name, *match) for page in [*PAGES, *PROGRAMS] for match in pattern.findall(text_of(page))]


def console_commands():
    """Return (page, command, arguments) for every `fracture-det` line of the documents, docstrings and its help."""
    pattern = re.compile(r"^\s*(?:\.venv/bin/)?fracture-det ([a-z][a-z0-9-]*)(.*)$", flags=re.MULTILINE)
    texts = [(page.name, text_of(page)) for page in [*PAGES, *CONSOLE, *PROGRAMS]]
    return [(name, *match) for name, text in [*texts, ("--help", JOURNEYS)] for match in pattern.findall(text)]


@pytest.mark.parametrize(("page", "command", "arguments"), console_commands())
def test_a_console_command_of_the_documents_can_be_given(page, command, arguments):
    assert command in COMMANDS
    module = importlib.import_module(f"fracture_det.cli.{command.replace('-', '_')}")
    if hasattr(module, "build_parser"):
        module.build_parser().parse_args(shlex.split(re.split(r"[|;&>]", arguments)[0]))


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
    recipe = read_recipe(RECIPE, [])
    commands = [recipe.command(step) for step in recipe.steps if step.run]
    arguments = [parsers[program].parse_args(rest) for _, program, *rest in commands]
    configs = [given.config_file for given in arguments if hasattr(given, "config_file")]
    leaves = {path for path in (ROOT / "configs/shipped").iterdir() if path != RECIPE}
    assert sorted(configs) == sorted(f"configs/shipped/{path.name}" for path in leaves)


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


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.glob("docs/*.md")), ROOT / "datasets/README.md"], ids=lambda page: page.name
)
def test_a_page_begins_with_a_sentence_and_a_command(page):
    blocks = [block for block in re.sub("<!--.*?-->", "", page.read_text()).split("\n\n") if block.strip()]
    assert blocks[0].startswith("# ")
    assert re.fullmatch(r"[A-Z][^|#]+[.:]", blocks[1].replace("\n", " ").strip()), "one sentence"
    assert blocks[2].startswith("    "), "one command"


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_a_page_shows_a_picture_and_ends_with_its_limits(page):
    text = page.read_text(encoding="utf-8")
    assert re.search(r"^!\[", text, flags=re.MULTILINE)
    assert re.findall("^## (.*)$", text, flags=re.MULTILINE)[-1] == "Limits"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_files_that_a_page_names_exist(page):
    paths = re.findall(r"`((?:fracture_det|webapp|tools|tests|benchmarks|docs)/[\w/]+\.py)`", page.read_text("utf-8"))
    assert page.name == "CHANGELOG.md" or [path for path in paths if not (ROOT / path).is_file()] == []
