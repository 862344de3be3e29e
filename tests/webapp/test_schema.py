"""schemathesis asks a real server everything that the API's description allows, and much that it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("schemathesis")


@pytest.mark.parametrize("examples", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_schemathesis_finds_nothing(start_server, tmp_path, examples):
    server = start_server(tmp_path / "instance", FRACTURE_UPLOADS_PER_MINUTE="0")
    config = ["--config-file", str(Path(__file__).with_name("schemathesis.toml"))]
    how = ["--max-examples", str(examples), "--seed", "1", "--no-color"]
    command = [str(PROGRAM), *config, "run", f"{server.address}/api/openapi.json", *how]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "Selected: 16/16" in done.stdout
