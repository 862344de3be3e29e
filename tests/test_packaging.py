"""The source archive and the wheel: built, installed into an empty environment, and used outside the checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import draw_radiograph

ROOT = Path(__file__).parents[1]
BUILD = ["-m", "build", "--no-isolation"]
# pip says one of these where it could not ask an index, and not where a package is at fault.
NO_INDEX = ("NewConnectionError", "Temporary failure in name resolution", "Network is unreachable", "ConnectTimeout")

pytestmark = pytest.mark.slow


def run(*command, cwd, check=True):
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FRACTURE_", "COV"))}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what Git does not ignore, without tests and documents: building leaves files beside the sources."""
    copy = tmp_path_factory.mktemp("sources") / "fracture_det"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", ":!tests", ":!docs"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in names:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def sdist(checkout, tmp_path_factory):
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, *BUILD, "--sdist", "--outdir", out, cwd=checkout)
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel, built from the source archive and nothing else."""
    out = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(out, filter="data")
    run(sys.executable, *BUILD, "--wheel", "--outdir", out, next(out.iterdir()), cwd=out)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_what_serving_needs_and_not_the_float_weights(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    page = {path.relative_to(ROOT / "webapp").as_posix() for path in (ROOT / "webapp").rglob("*") if path.is_file()}
    assert {f"fracture_det_webapp/{name}" for name in page if "__pycache__" not in name} <= names
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert {f"fracture_det/{name}" for name in configs} <= names
    shipped = {name.removeprefix("fracture_det/") for name in names if name.startswith("fracture_det/weights/")}
    members = {f"int8/{name}/{file}" for name in ("resnet", "efficientnet") for file in ("model.xml", "model.bin")}
    members |= {f"types/{file}" for file in ("classifier.json", "model.xml", "model.bin", "SHA256SUMS")}
    assert {f"weights/shipped/{name}" for name in {*members, "MODEL_CARD.md", "calibration.json"}} <= shipped
    assert all((ROOT / name).is_file() for name in shipped)
    assert not [name for name in names if name.endswith((".safetensors", ".pyc"))]
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"fracture_det", "fracture_det_webapp"}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The programs of a new environment that holds the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    done = run(folder / "bin/python", "-m", "pip", "install", "--quiet", wheel, cwd=folder, check=False)
    if done.returncode and any(words in done.stderr for words in NO_INDEX):
        pytest.skip(f"no package index can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "bin"


@pytest.fixture
def radiograph(tmp_path):
    """A folder with nothing but one radiograph."""
    pixels, _ = draw_radiograph(np.random.default_rng(0), fractured=True)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    return tmp_path / "one.png"


def test_it_predicts(installed, radiograph):
    program, folder = installed / "fracture-det", radiograph.parent
    run(program, "predict", "--detector", "shipped", "--input", "one.png", "--out", "predicted", cwd=folder)
    head, line = map(json.loads, (folder / "predicted" / "predictions.jsonl").read_text().splitlines())
    assert "ResNet and EfficientNet" in json.dumps(head)
    assert "one.png" in json.dumps(line)


def test_it_serves_an_upload(installed, radiograph):
    command = [str(installed / "fracture-det"), "serve", "--port", "0"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(radiograph.parent)}
    with subprocess.Popen(command, cwd=radiograph.parent, env=environ, stdout=subprocess.PIPE, text=True) as server:
        try:
            said = next(line for line in server.stdout if "http://" in line)
            body = b'--frame\r\nContent-Disposition: form-data; name="file"; filename="one.png"\r\n\r\n'
            request = urllib.request.Request(
                f"{re.search(r'http://[^ ]+', said)[0]}/api/v1/predictions",
                body + radiograph.read_bytes() + b"\r\n--frame--\r\n",
                {"Content-Type": "multipart/form-data; boundary=frame"},
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                result = json.load(answer)
        finally:
            server.terminate()
    assert result["finding"]["level"] in {"none seen", "possible", "likely"}
    assert result["calibrated"] is True


def test_training_says_how_to_get_what_it_needs(installed, tmp_path):
    done = run(installed / "fracture-det", "train", "--config-file", "x.yaml", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert 'pip install "fracture_det[train]"' in done.stderr
    assert "fracture-det build-detectron2" in done.stderr
