"""`fracture-det`: its help teaches, its commands are the tools, and what is not installed is a sentence."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

from fracture_det import cli
from fracture_det.cli import COMMANDS, main
from fracture_det.cli.page import import_page
from fracture_det.resources import CHECKOUT, PACKAGE, find_config, how_to_install, resource

ROOT = Path(__file__).parents[2]


def test_the_help_names_every_command_in_one_line_and_the_three_journeys(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert [line.split()[0] for line in said.splitlines() if line[2:].startswith(tuple(COMMANDS))] == list(COMMANDS)
    assert said.count("You ") == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_under_its_own_name(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: fracture-det {command} ")
    # A command of several lines keeps them: a single backslash in the docstring would join two.
    assert not re.findall(r"^    fracture-det .*\S {4,}-.*", said, flags=re.MULTILINE)


@pytest.mark.parametrize("arguments", [[], ["fly"]])
def test_a_command_that_does_not_exist_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "fracture-det COMMAND" in capsys.readouterr().err


def test_it_is_the_console_command_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"fracture-det": "fracture_det.cli:main"}


def test_serving_loads_neither_torch_nor_evaluation():
    code = (
        "import sys; from fracture_det.cli import main\n"
        "try: main(['serve', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'detectron2', 'pycocotools', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("detectron2.config", ["Detectron2", "fracture-det build-detectron2", "tools/build_detectron2.py"]),
        ("torch", ["torch", 'pip install "fracture_det[train]"']),
        ("ray", ["ray", 'pip install "fracture_det[ray]"']),
    ],
)
def test_a_missing_package_is_a_sentence_that_says_how_to_get_it(package, words, monkeypatch, capsys):
    def module(name):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(cli.importlib, "import_module", module)
    assert main(["train"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fracture-det train: it needs ")
    assert len(error.splitlines()) == 1
    assert all(word in error for word in [*words, how_to_install(package)])


def test_a_module_of_the_package_itself_that_is_missing_is_a_fault(monkeypatch):
    def module(name):
        raise ModuleNotFoundError("No module named 'fracture_det.cli.trian'", name="fracture_det.cli.trian")

    monkeypatch.setattr(cli.importlib, "import_module", module)
    with pytest.raises(ModuleNotFoundError):
        main(["train"])


def test_the_shipped_detector_is_served_with_its_calibration_and_others_are_not(monkeypatch):
    served = []
    monkeypatch.setattr(import_page("__main__"), "main", lambda given: served.append(given) or 0)
    for arguments, calibrated in (([], True), (["--detector", "d2:run"], False)):
        monkeypatch.setenv("FRACTURE_CALIBRATION", "x")  # remembered, and put back at the end
        monkeypatch.delenv("FRACTURE_CALIBRATION")
        assert main(["serve", *arguments]) == 0
        assert ("FRACTURE_CALIBRATION" in os.environ) == calibrated
    assert served == [[], ["--detector", "d2:run"]]


def test_the_page_is_the_one_of_the_checkout():
    assert CHECKOUT == ROOT
    assert import_page().__file__ == str(ROOT / "webapp" / "__init__.py")


def test_what_comes_with_the_package_is_found_in_the_checkout_and_in_a_wheel(monkeypatch, tmp_path):
    assert resource("weights/shipped") == ROOT / "weights" / "shipped"
    monkeypatch.chdir(tmp_path)
    name = "configs/faster_rcnn_R_50_FPN.yaml"
    assert find_config(name) == ROOT / name
    (tmp_path / "configs").mkdir()
    (tmp_path / name).touch()
    assert find_config(name) == Path(name)
    assert find_config("configs/none.yaml") == Path("configs/none.yaml")
    monkeypatch.setattr("fracture_det.resources.CHECKOUT", None)
    assert resource("configs") == PACKAGE / "configs"


def test_an_archive_that_detectron2_cannot_be_built_from_is_a_sentence(tmp_path, capsys):
    archive = tmp_path / "archive.tar.gz"
    command = ["build-detectron2", "--archive", str(archive), "--out", str(tmp_path / "wheels")]
    assert main(command) == 2
    assert f"build-detectron2: [Errno 2] No such file or directory: '{archive}'" in capsys.readouterr().err
    archive.write_bytes(b"another file")
    assert main(command) == 2
    assert f"build-detectron2: {archive}: SHA-256 is " in capsys.readouterr().err
