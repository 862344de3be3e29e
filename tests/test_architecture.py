"""The import contracts of pyproject.toml, and thin tools."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = sorted((ROOT / "tools").glob("*.py"))


def test_imports_go_down_the_floors_only():
    # In a process of its own: import-linter's logging set-up silences every logger that exists.
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_tool_is_a_docstring_with_a_command_around_the_console_commands_parser_and_main(tool):
    source = tool.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert f"tools/{tool.name} " in ast.get_docstring(tree)
    [imported] = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module != "pathlib"]
    assert imported.module.startswith("fracture_det.cli.")
    assert {"build_parser", "main"} == {alias.name for alias in imported.names}
    assert len(source.removeprefix(ast.get_docstring(tree, clean=False)).splitlines()) <= 80
