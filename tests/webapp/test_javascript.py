"""The page's JavaScript: its unit tests in Node, and ESLint where `npm ci` has installed it."""

import re
import shutil
import subprocess

import pytest

from tests.webapp.bright import ROOT

MIN_NODE = 20
TESTS = sorted(str(path) for path in (ROOT / "tests" / "webapp" / "js").glob("*.test.js"))
ESLINT = ROOT / "node_modules" / ".bin" / "eslint"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def node() -> str:
    program = shutil.which("node")
    if program is None:
        pytest.skip(f"no Node.js here: the page's JavaScript is tested with Node.js {MIN_NODE} or newer")
    version = run(program, "--version").stdout.strip()
    if int(re.match(r"v(\d+)", version)[1]) < MIN_NODE:
        pytest.skip(f"Node.js {version} here: the page's JavaScript is tested with Node.js {MIN_NODE} or newer")
    return program


def test_the_unit_tests_pass(node):
    assert TESTS
    done = run(node, "--test", *TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"^\S+ tests (\d+)$", done.stdout, re.MULTILINE)[1]) >= 3


def test_eslint_finds_nothing(node):
    if not ESLINT.exists():
        pytest.skip("no ESLint here: npm ci")
    done = run(node, str(ESLINT), "--max-warnings", "0", "webapp/static", "tests/webapp/js", "eslint.config.js")
    assert done.returncode == 0, done.stdout + done.stderr
