"""The import contracts of pyproject.toml, and thin tools."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = sorted((ROOT / "tools").glob("*.py"))


def test_imports_go_down_the_layers_only():
    # In a process of its own: import-linter's logging set-up silences every logger that exists.
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def drawing():
    """Return docs/draw_architecture.py as a module."""
    spec = importlib.util.spec_from_file_location("draw_architecture", ROOT / "docs" / "draw_architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_drawing_of_the_architecture_shows_the_contracts(drawing):
    toml = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    committed = drawing.TARGET.read_text(encoding="utf-8")
    assert committed == drawing.drawing(toml), "draw it again: .venv/bin/python docs/draw_architecture.py"


def test_the_text_of_the_architecture_names_the_packages_in_the_order_of_the_contract(drawing):
    layers = drawing.layers((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = page.partition("## Packages")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)(?:/|\.py)` \|", rows, flags=re.MULTILINE) == layers


def test_every_step_of_a_journey_is_a_file_that_exists(drawing):
    modules = [module for steps in drawing.JOURNEYS.values() for _, module in steps if module]
    assert len(modules) >= 10
    assert [module for module in modules if not (ROOT / module).is_file()] == []


def test_every_python_file_of_the_page_is_in_the_text():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## The page")[2]
    files = {path.name for path in (ROOT / "webapp").glob("*.py")} - {"__init__.py"}
    assert {name for name in files if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_tool_is_a_docstring_with_a_command_around_the_console_commands_parser_and_main(tool):
    source = tool.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert f"tools/{tool.name} " in ast.get_docstring(tree)
    [imported] = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module != "pathlib"]
    assert imported.module.startswith("fracture_det.cli.")
    assert {"build_parser", "main"} == {alias.name for alias in imported.names}
    assert len(source.removeprefix(ast.get_docstring(tree, clean=False)).splitlines()) <= 80
