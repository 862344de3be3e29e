"""tools/gate.py: only a candidate that loses nothing, wins something and was not trained on the tests is promoted."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from fracture_det.baselines.speed.turns import MeasuredTurns, TimedDetector
from fracture_det.calibration.operating_points import fitted_images
from fracture_det.data.coco import write_coco
from fracture_det.data.predictions import WEIGHTS_SHA256
from fracture_det.data.records import Dataset
from fracture_det.data.synthetic import write_image
from fracture_det.evaluation.report import Estimate, Report, RobustnessRow
from fracture_det.evaluation.verdict import FAILED, NOT_JUDGED, PASSED, SKIPPED, Verdict
from fracture_det.structures.hashes import sha256_of
from tests.evaluation.gate_cases import (
    BETTER,
    CANDIDATE_SHA256,
    SERVED,
    SERVED_SHA256,
    Skill,
    failed,
    predict,
    write_run,
    write_tests,
)
from tests.evaluation.test_eval_tool import load_tool
from tests.reporting.reports import bare

NAMES = ("near", "far")
WORSE = Skill(hit=-0.5, moved=8.0)
OTHERS = ("robustness", "speed", "size", "leaks")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The folder of two tests with the served detector's runs, and their truths."""
    folder = tmp_path_factory.mktemp("tests")
    truths = write_tests(folder, {"near": 1, "far": 2})
    (folder / "gate.yaml").write_text("bootstrap: 200\n")
    return folder, truths


@pytest.fixture
def gate(served, tmp_path):
    """Run the gate on predictions of a candidate by test; return the exit code, the verdict and its statuses."""
    folder, _ = served

    def run(candidates, *more, skip=OTHERS, calibrated_as=BETTER):
        given = []
        for name, predictions in candidates.items():
            path = write_run(tmp_path / f"candidate_{name}", predictions, calibrated_as)
            given += ["--test", name, *map(str, (folder / f"{name}.json", folder / f"served_{name}", path))]
        options = ["--config", str(folder / "gate.yaml"), "--out", str(tmp_path / "out"), *map(str, more)]
        code = load_tool("gate").main([*given, *options, *(["--skip", *skip] if skip else [])])
        if code == 2:
            return code, None, {}
        verdict = Verdict.load(tmp_path / "out")
        return code, verdict, {check.name: check.status for check in verdict.checks}

    return run


def candidates(served, skill, **by_test):
    """Return the candidate's predictions of both tests; by_test: another skill on one of them."""
    return {name: predict(truth, by_test.get(name, skill), CANDIDATE_SHA256) for name, truth in served[1].items()}


def test_a_good_candidate_is_promoted(served, gate, tmp_path, capsys):
    code, verdict, statuses = gate(candidates(served, BETTER))
    assert code == 0
    assert verdict.promote
    assert verdict.reasons == []
    assert statuses == {**dict.fromkeys(statuses, PASSED), **dict.fromkeys(OTHERS, SKIPPED)}
    assert (verdict.served.sha256, verdict.candidate.sha256) == (SERVED_SHA256, CANDIDATE_SHA256)
    calibration = sha256_of(tmp_path / "candidate_near" / "calibration.json")
    assert verdict.tests[0].files["candidate calibration"] == calibration
    assert verdict.tests[0].files["served calibration"] != calibration
    for test in verdict.tests:
        for one in test.figures:
            assert one.difference == pytest.approx(one.candidate.value - one.served.value, abs=1e-9)
            assert one.lower < one.difference < one.upper
            assert one.p_holm >= one.p_above
        assert [(one.figure, one.status) for one in test.calibration] == [("image", PASSED), ("box", PASSED)]
    assert capsys.readouterr().out.startswith("Promote\ndetector bbbb may replace detector aaaa. All of 6 ")
    assert "<h1>Promote</h1>" in (tmp_path / "out/verdict.html").read_text()


def test_the_same_inputs_give_the_same_bytes(served, gate, tmp_path):
    written = []
    for _ in range(2):
        gate(candidates(served, BETTER))
        out = tmp_path / "out"
        written.append({path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()})
        shutil.rmtree(out)
    assert {"verdict.json", "verdict.html", "margins.svg", "margins.png"} == set(written[0])
    assert written[0] == written[1]


def test_one_that_forgets_is_not_promoted_however_much_it_learned(served, gate):
    code, verdict, statuses = gate(candidates(served, BETTER, near=WORSE))
    assert code == 1
    assert statuses["tests"] == FAILED
    assert statuses["better"] == PASSED
    assert any("AP50 on near" in reason for reason in verdict.reasons)
    assert not any("on far" in reason for reason in verdict.reasons)


def test_an_equal_one_loses_nothing_and_is_not_promoted(served, gate):
    code, verdict, statuses = gate(candidates(served, SERVED), calibrated_as=SERVED)
    assert code == 1
    assert [name for name, status in statuses.items() if status == FAILED] == ["better"]
    assert {(one.difference, one.lower, one.p_above) for test in verdict.tests for one in test.figures} == {(0, 0, 1)}
    assert verdict.reasons == ["Nothing is shown to be better than the served detector."]


def test_one_that_fails_a_body_part_is_not_promoted(served, gate):
    blind = Skill(hit=-0.2)
    found = {
        name: predict(
            truth,
            BETTER,
            CANDIDATE_SHA256,
            of_record=lambda record: blind if record.anatomy == "shoulder" else Skill(hit=3.5, moved=2.0),
        )
        for name, truth in served[1].items()
    }
    code, verdict, statuses = gate(found)
    assert code == 1
    assert statuses["tests"] == PASSED
    assert statuses["strata"] == FAILED
    fallen = {
        stratum.value
        for test in verdict.tests
        for stratum in test.strata
        if any(one.status == FAILED for one in stratum.figures)
    }
    assert fallen == {"shoulder"}


def test_one_whose_probabilities_are_wrong_is_not_promoted(served, gate):
    # It was calibrated as if its scores were five times as sure.
    code, verdict, statuses = gate(
        candidates(served, replace(BETTER, temperature=5.0)), calibrated_as=replace(BETTER, temperature=1.0)
    )
    assert code == 1
    assert [name for name, status in statuses.items() if status == FAILED] == ["calibration"]
    assert "image probabilities on near" in verdict.reasons[0]


@pytest.mark.parametrize("fractured", [True, False])
def test_failed_images_count_against_the_candidate(served, gate, fractured):
    of_kind = [record for record in served[1]["near"] if record.fractured is fractured]
    names = {record.file_name for record in of_kind[:40]}
    found = candidates(served, BETTER)
    whole = gate(found)[1].tests[0]
    code, verdict, statuses = gate({**found, "near": failed(found["near"], names)})
    assert code == 1
    assert statuses["failures"] == FAILED
    near = verdict.tests[0]
    assert set(near.failed) == names
    assert near.counts == whole.counts  # none was dropped
    for one, other in zip(near.figures, whole.figures, strict=True):
        # 40 false alarms among 240 images leave room below one per image.
        assert one.candidate.value < other.candidate.value or (one.figure == "FROC@1" and not fractured)
        assert one.served.value == other.served.value


def test_images_that_the_served_detector_failed_on_are_in_no_figure_and_named(served, gate, tmp_path):
    folder, truths = served
    names = {record.file_name for record in list(truths["near"])[:4]}
    kept = tmp_path / "kept"
    shutil.copytree(folder / "served_near", kept)
    try:
        write_run(folder / "served_near", failed(predict(truths["near"], SERVED, SERVED_SHA256), names))
        _, verdict, statuses = gate(candidates(served, BETTER))
    finally:
        shutil.rmtree(folder / "served_near")
        shutil.copytree(kept, folder / "served_near")
    assert statuses["failures"] == PASSED
    assert set(verdict.tests[0].left_out) == names
    assert (verdict.tests[0].counts["images_asked"], verdict.tests[0].counts["images"]) == (240, 236)
    assert any("They are in no figure." in note for note in verdict.notes)


def test_a_small_test_decides_nothing_but_a_clear_fall(served, gate):
    folder, _ = served
    (folder / "small.yaml").write_text("bootstrap: 200\nmin_fractured: 121\n")
    code, verdict, _ = gate(candidates(served, BETTER), "--config", folder / "small.yaml")
    assert code == 1
    assert "No test can decide on AP50, AUROC, FROC@1: too small, or not defined there." in verdict.reasons
    assert "near has 120 fractured images: too few to decide." in verdict.notes[0]
    code, verdict, _ = gate(candidates(served, BETTER, near=WORSE), "--config", folder / "small.yaml")
    assert code == 1
    assert "AP50 on near" in verdict.reasons[0]


# --- leaks, speed, robustness ----------------------------------------------------------------------------------------


@pytest.fixture
def images(served, tmp_path):
    """Draw the images of both tests and of a training set that shares none; return their folders by name."""
    random = np.random.default_rng(7)
    folders = {}
    training = Dataset(
        tuple(replace(r, file_name=f"t{r.file_name}", group_id=f"t{r.group_id}") for r in _few(served)), ("fracture",)
    )
    write_coco(training, tmp_path / "train.json")
    for name, truth in {**served[1], "train": training}.items():
        folders[name] = tmp_path / f"images_{name}"
        folders[name].mkdir()
        for record in truth:
            noise = random.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            write_image(folders[name] / record.file_name, np.kron(noise, np.ones((8, 8, 1), np.uint8)))
    return tmp_path, folders, training


def _few(served):
    return served[1]["near"].records[:12]


def leak_options(images):
    folder, folders, _ = images
    named = [["--images", name, folders[name]] for name in NAMES]
    return ["--train", folder / "train.json", folders["train"], *named[0], *named[1]]


def test_a_candidate_that_was_trained_on_other_images_has_no_leak(served, gate, images):
    code, verdict, statuses = gate(
        candidates(served, BETTER), *leak_options(images), skip=("robustness", "speed", "size")
    )
    assert code == 0
    assert statuses["leaks"] == PASSED
    assert any(name.startswith("training data ") for name in verdict.files)


@pytest.mark.parametrize("how", ["same file", "near copy", "same group"])
def test_a_leaking_candidate_is_refused_by_name(served, gate, images, how):
    folder, folders, training = images
    leaked = served[1]["far"].records[0]
    first = training.records[0]
    if how == "same group":
        records = (replace(first, group_id=leaked.group_id), *training.records[1:])
        write_coco(Dataset(records, training.class_names), folder / "train.json")
    else:
        data = (folders["far"] / leaked.file_name).read_bytes()
        (folders["train"] / first.file_name).write_bytes(data + (b"\0" if how == "near copy" else b""))
    code, verdict, _ = gate(candidates(served, BETTER), *leak_options(images), skip=("robustness", "speed", "size"))
    assert code == 1
    assert not verdict.promote
    assert (leaked.file_name, how) in [(leak.image, leak.how) for leak in verdict.leaks]
    assert verdict.reasons[0].startswith("Leaking: ")
    assert leaked.file_name in verdict.reasons[0]


def test_an_image_that_cannot_be_compared_is_an_error(served, gate, images, capsys):
    _, folders, training = images
    (folders["train"] / training.records[0].file_name).unlink()
    assert gate(candidates(served, BETTER), *leak_options(images), skip=())[0] == 2
    assert training.records[0].file_name in capsys.readouterr().err


def turns(tmp_path, ms=10.0, size=100, sha256=CANDIDATE_SHA256):
    path = tmp_path / "timing.json"
    served, candidate = TimedDetector("s", SERVED_SHA256, 10.0, 100), TimedDetector("c", sha256, ms, size)
    MeasuredTurns("a machine", 4, 2, served, candidate).save(path)
    return ["--timing", path]


@pytest.mark.parametrize(("ms", "size", "wrong"), [(12.4, 149, []), (12.6, 100, ["speed"]), (10, 151, ["size"])])
def test_speed_and_size_have_limits(served, gate, tmp_path, ms, size, wrong):
    code, _, statuses = gate(candidates(served, BETTER), *turns(tmp_path, ms, size), skip=("robustness", "leaks"))
    assert code == (1 if wrong else 0)
    assert [name for name, status in statuses.items() if status == FAILED] == wrong


def test_a_timing_of_another_detector_is_refused(served, gate, tmp_path, capsys):
    assert gate(candidates(served, BETTER), *turns(tmp_path, sha256="c" * 64))[0] == 2
    assert "the detector that was timed has the SHA-256 cccc" in capsys.readouterr().err


@pytest.mark.parametrize("missing", OTHERS)
def test_what_was_not_judged_stops_the_promotion_unless_it_is_skipped(served, gate, missing):
    code, verdict, statuses = gate(candidates(served, BETTER), skip=[name for name in OTHERS if name != missing])
    assert code == 1
    assert statuses[missing] == NOT_JUDGED
    assert len(verdict.reasons) == 1
    assert "judged" in verdict.reasons[0]


def test_without_a_calibration_it_is_not_judged(served, gate):
    code, _, statuses = gate(candidates(served, BETTER), calibrated_as=None)
    assert code == 1
    assert statuses["calibration"] == NOT_JUDGED
    assert gate(candidates(served, BETTER), calibrated_as=None, skip=(*OTHERS, "calibration"))[0] == 0


@pytest.mark.parametrize(("fall", "status"), [(0.02, PASSED), (0.04, FAILED)])
def test_robustness_is_that_of_the_reports(served, gate, tmp_path, fall, status):
    folder, _ = served
    digest = hashlib.sha256((folder / "near.json").read_bytes()).hexdigest()
    for path, value in ((folder / "served_near", 0.5), (tmp_path / "candidate_near", 0.5 - fall)):
        rows = [
            RobustnessRow(kind, strength, "", {name: Estimate(value, n=9) for name in ("AP50", "AUROC")})
            for kind in ("blur", "noise")
            for strength in (1, 2)
        ]
        bare_report(digest, rows).save(path)
    try:
        _, verdict, statuses = gate(candidates(served, BETTER))
    finally:
        (folder / "served_near" / "report.json").unlink()
    assert statuses["robustness"] == status
    assert [one.mean for one in verdict.robustness] == pytest.approx([-fall] * 2)


def bare_report(digest, rows):
    report: Report = bare()
    return replace(report, about={**report.about, "data SHA-256": digest}, robustness=rows)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_what_cannot_be_decided_is_said_in_one_line(served, gate, capsys):
    folder, truths = served
    other = {"near": predict(truths["near"], BETTER, CANDIDATE_SHA256), "far": predict(truths["far"], BETTER, "c" * 64)}
    assert gate(other)[0] == 2
    assert "candidate: test near was predicted by detector bbbb" in capsys.readouterr().err
    same = {name: predict(truth, BETTER, SERVED_SHA256) for name, truth in truths.items()}
    assert gate(same)[0] == 2
    assert (
        f"both detectors have the same weights, {SERVED_SHA256}: detector aaaa, detector aaaa"
        in capsys.readouterr().err
    )
    near = ["--test", "again", *map(str, (folder / "near.json", folder / "served_near", folder / "served_near"))]
    assert gate(candidates(served, BETTER), *near)[0] == 2
    assert "tests near and again have the same truth" in capsys.readouterr().err
    anonymous = {name: replace(one, about={}) for name, one in candidates(served, BETTER).items()}
    assert gate(anonymous, calibrated_as=None)[0] == 2
    assert f"no {WEIGHTS_SHA256[-7:]} of its weights" in capsys.readouterr().err
    fewer = {name: replace(one, images=one.images[1:]) for name, one in candidates(served, BETTER).items()}
    assert gate(fewer)[0] == 2
    assert "test near, candidate: no prediction for 1 of 240 images: 1_000.png" in capsys.readouterr().err
    (folder / "wrong.yaml").write_text("margins: {AP51: .1}\n")
    assert gate(candidates(served, BETTER), "--config", folder / "wrong.yaml")[0] == 2
    assert "margins.AP51: unknown, got 0.1" in capsys.readouterr().err
    (folder / "wrong.yaml").write_text("bootstrap: 20\n")
    assert gate(candidates(served, BETTER), "--config", folder / "wrong.yaml")[0] == 2
    assert "bootstrap: " in capsys.readouterr().err


def test_a_calibration_that_was_fitted_on_a_test_is_refused(served, gate, tmp_path, capsys):
    found, truths = candidates(served, BETTER), served[1]
    path = write_run(tmp_path / "fitted", found["near"], BETTER) / "calibration.json"
    content = json.loads(path.read_text())
    content["fitted_on"]["images"] = fitted_images(truths["far"])
    path.write_text(json.dumps(content))
    assert gate(found, "--candidate-calibration", path)[0] == 2
    assert "calibration and its thresholds were fitted on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (["--images", "nowhere", "."], "no test is named nowhere"),
        (["--served", "shipped"], "give both"),
        (["--served", "shipped", "--candidate", "shipped"], "--served and --candidate need --images of one"),
        (["--train", "a.json", "."], "--train needs --images of every test"),
    ],
)
def test_options_that_lack_another_are_refused(served, gate, more, error, capsys):
    with pytest.raises(SystemExit):
        gate(candidates(served, BETTER), *more)
    assert error in capsys.readouterr().err
