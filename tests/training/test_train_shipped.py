"""tools/train_shipped.py: the recipe of the shipped detector, steps that resume, and a small recipe from end to end."""

import shlex
from pathlib import Path

import pytest

from fracture_det.cli.train_shipped import RECIPE, main, read_recipe
from fracture_det.evaluation.report import Report
from fracture_det.modeling.config import load_config
from tests.builders import build_dataset

ROOT = Path(__file__).parents[2]


class TestShippedRecipe:
    def commands(self, capsys, *arguments):
        """Return step name -> its command as a list, without the Python in front."""
        assert main(["--dry-run", *arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        names = [step.name for step in read_recipe(RECIPE, []).steps]
        return {name: shlex.split(line)[1:] for name, line in zip(names, lines, strict=True)}

    def test_it_prepares_trains_exports_and_evaluates_in_this_order(self, capsys):
        commands = self.commands(capsys, "--folder", "fracatlas=/data/frac atlas")
        stages = [*(f"resnet_{n}" for n in range(1, 6)), *(f"efficientnet_{n}" for n in range(1, 5))]
        assert list(commands) == [
            *("prepare_fracatlas", "prepare_science2022", "prepare_bonebreak", "healthy_closeups", "pool", *stages),
            *("average_resnet", "export_resnet", "export_efficientnet", "copy_ensemble", "fit_types"),
            "export_int8",
            *("evaluate_sources", "evaluate_fracatlas"),
        ]
        assert commands["resnet_1"] == [
            *("tools/train_net.py", "--resume", "--config-file", "configs/shipped/resnet_1.yaml"),
            *("--data", "output/shipped/fracatlas", "--images", "/data/frac atlas/images") * 2,
            *("--data", "output/shipped/science2022", "--images", "datasets/science2022/images"),
            *("OUTPUT_DIR", "output/shipped/resnet_1"),
        ]
        assert commands["copy_ensemble"][-1] == "output/shipped/detector"

    def test_every_stage_starts_from_the_best_weights_of_the_one_before(self, capsys):
        commands = self.commands(capsys)
        used = set()
        for name, command in commands.items():
            if command[0] != "tools/train_net.py":
                continue
            config = ROOT / command[command.index("--config-file") + 1]
            used.add(config.name)
            assert config.stem == name
            network, _, stage = name.partition("_")
            if stage != "1":
                before = commands[f"{network}_{int(stage) - 1}"]
                expected = f"{before[before.index('OUTPUT_DIR') + 1]}/model_best.pth"
                assert expected == load_config(config, ["MODEL.DEVICE", "cpu"]).MODEL.WEIGHTS
        assert used == {path.name for path in RECIPE.parent.glob("*.yaml")} - {RECIPE.name}

    def test_every_option_is_one_of_its_tool(self, capsys):
        from tools import average, closeups, eval, export_model, fit_types, pool, prepare_dataset, train_net

        programs = (average, closeups, eval, export_model, fit_types, pool, prepare_dataset, train_net)
        tools = {Path(tool.__file__).name: tool for tool in programs}
        for name, command in self.commands(capsys).items():
            if name != "copy_ensemble":
                tools[Path(command[0]).name].build_parser().parse_args(command[1:])


@pytest.fixture
def recipe(tmp_path):
    """A recipe of two steps: `first` fails until the file `good` exists, `second` copies."""
    (tmp_path / "tool.py").write_text(
        "import pathlib, sys\nout = pathlib.Path(sys.argv[1])\n(out / 'runs').open('a').write('x')\n"
        "sys.exit(not (out / 'good').exists())\n"
    )
    (tmp_path / "file.txt").write_text("copied")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"folders: {{out: '{tmp_path}'}}\narguments: {{given: '{{out}}'}}\n"
        f"steps:\n- {{name: first, run: '{tmp_path}/tool.py {{given}}'}}\n"
        f"- {{name: second, copy: ['{{out}}/file.txt'], to: '{{out}}/copies'}}\n"
    )
    return path


def test_a_failed_step_ends_the_run_and_the_same_command_resumes_there(recipe, capfd):
    folder = recipe.parent
    assert main(["--recipe", str(recipe)]) == 1
    assert "train_shipped: first: " in capfd.readouterr().err
    assert not (folder / "copies").exists()
    (folder / "good").touch()
    assert main(["--recipe", str(recipe)]) == 0
    assert (folder / "copies" / "file.txt").read_text() == "copied"
    assert (folder / "runs").read_text() == "xx"
    assert main(["--recipe", str(recipe)]) == 0
    assert (folder / "runs").read_text() == "xx"
    assert "first: done\nsecond: done\n" in capfd.readouterr().out


def test_a_step_runs_again_when_it_is_named_or_its_command_has_changed(recipe):
    folder = recipe.parent
    (folder / "good").touch()
    assert main(["--recipe", str(recipe)]) == 0
    assert main(["--recipe", str(recipe), "--steps", "first"]) == 0
    recipe.write_text(recipe.read_text().replace("{given}'", "{given} more'"))
    assert main(["--recipe", str(recipe)]) == 0
    assert (folder / "runs").read_text() == "xxx"


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (("name: first", "nom: first"), [], "recipe.yaml: steps[0].nom: unknown, got 'first'"),
        (("name: first", "name: [1]"), [], "recipe.yaml: steps[0].name: expected a text, got [1]"),
        (("name: first", "name: [1"), [], "recipe.yaml: while parsing a flow sequence"),
        (("{given}'", "{gone}'"), [], "step first: 'gone' is neither a folder nor an argument of the recipe"),
        (("", ""), ["--folder", "in=x"], "--folder: expected NAME=PATH with one of out, got 'in=x'"),
        (("", ""), ["--steps", "third"], "recipe.yaml has no third"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said(recipe, change, arguments, message, capsys):
    recipe.write_text(recipe.read_text().replace(*change))
    assert main(["--recipe", str(recipe), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (recipe.parent / "runs").exists()


@pytest.mark.slow
def test_a_small_recipe_from_radiographs_to_a_report(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    build_dataset(tmp_path / "limbs", n_fractured=12, n_healthy=12, seed=3, size=(96, 80))
    (tmp_path / "recipe.yaml").write_text(
        """
folders: {limbs: unknown, out: unknown}
arguments: {data: "--data {out}/data --images {limbs}/images"}
steps:
  - name: prepare
    run: >-
      tools/prepare_dataset.py --images {limbs}/images --annotations {limbs}/annotations --neighbours 0
      --metadata {limbs}/metadata.csv --group-column patient --fractions .4 .3 .3 --out {out}/data
  - name: train
    run: >-
      tools/train_net.py --resume --config-file configs/quick/faster_rcnn_R_18_FPN_cpu.yaml {data}
      OUTPUT_DIR {out}/run MODEL.DEVICE cpu INPUT.LETTERBOX 64 SOLVER.EPOCHS 1 SOLVER.STEP_EPOCHS (1,)
      MODEL.FPN.OUT_CHANNELS 32
  - name: export
    run: >-
      tools/export_model.py --detector d2:{out}/run --check-images {limbs}/images --check-count 2
      --out {out}/detector
  - name: evaluate
    run: >-
      tools/eval.py --detector d2:{out}/detector --data {out}/data/test.json --images {limbs}/images --bootstrap 20
      --out {out}/report
"""
    )
    folders = ["--folder", f"limbs={tmp_path / 'limbs'}", "--folder", f"out={tmp_path / 'out'}"]
    assert main(["--recipe", str(tmp_path / "recipe.yaml"), *folders]) == 0
    assert Report.load(tmp_path / "out" / "report")
    assert sorted(path.stem for path in (tmp_path / "out" / "steps").iterdir()) == [
        *("evaluate", "export", "prepare", "train")
    ]
