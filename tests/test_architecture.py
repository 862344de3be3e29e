"""The floors of the house: contracts in pyproject.toml, and thin tools."""

import ast
from pathlib import Path

import pytest
from importlinter import cli

ROOT = Path(__file__).parents[1]
TOOLS = sorted((ROOT / "tools").glob("*.py"))


def test_imports_go_down_the_floors_only(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.lint_imports(config_filename="pyproject.toml", cache_dir=None) == 0, capsys.readouterr().out


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_tool_has_a_docstring_with_a_command_a_parser_and_a_main(tool):
    tree = ast.parse(tool.read_text(encoding="utf-8"))
    assert f"tools/{tool.name} " in ast.get_docstring(tree)
    assert {"build_parser", "main"} <= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
