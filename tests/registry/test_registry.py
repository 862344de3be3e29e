"""Versions of detectors: every byte as it was signed, one change at a time, and no promotion without the gate."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fracture_det.baselines.speed.candidates import model_files
from fracture_det.cli.models import main
from fracture_det.evaluation.verdict import (
    FAILED,
    NOT_JUDGED,
    PASSED,
    SKIPPED,
    Check,
    DetectorIdentity,
    TestResult,
    Verdict,
)
from fracture_det.inference.base import DetectorError
from fracture_det.inference.registry import open_detector
from fracture_det.registry.adding import Source, add_version
from fracture_det.registry.errors import RegistryError
from fracture_det.registry.registry import Grounds, Registry
from fracture_det.registry.signatures import PRIVATE_FILE, SIGNATURE_FILE, generate_key
from fracture_det.registry.states import CANDIDATE, RETIRED, SERVED, SHADOW, STATE_FILE, UNFINISHED
from fracture_det.registry.versions import VERSION_FILE
from tests.registry.toys import add_toy, make_registry, score_of, serve, write_toy

ROOT = Path(__file__).parents[2]


@pytest.fixture
def registry(tmp_path):
    return make_registry(tmp_path)


@pytest.fixture
def two(registry):
    """A registry with a served version and a candidate, and their names."""
    first, second = add_toy(registry, 0.9), add_toy(registry, 0.6)
    serve(registry, first)
    return registry, first, second


@pytest.fixture
def models(registry, capsys):
    """Run the command on the registry; return exit code, output and errors."""

    def run(*arguments):
        code = main([arguments[0], "--models", str(registry.folder), *map(str, arguments[1:])])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def verdict_on(served, candidate, *, promote=True, calibration=None, served_calibration=None, skipped=False):
    """Return a verdict on two versions, with what a promotion looks at."""
    files = {"truth": "1" * 64} | ({"candidate calibration": calibration} if calibration else {})
    identities = [DetectorIdentity(v.manifest.detector.name, v.manifest.detector.sha256) for v in (served, candidate)]
    checks = [Check("calibration", SKIPPED if skipped else PASSED, "")]
    tests = [TestResult("near", files, {}, False, [])]
    reasons = [] if promote else ["AP50 falls"]
    files |= {"served calibration": served_calibration} if served_calibration else {}
    return Verdict(promote, *identities, reasons, checks, tests, [], [], [], [], {}, {})


def write_verdict(path, verdict):
    path.write_text(verdict.to_json(), encoding="utf-8")
    return path


class TestVersions:
    def test_a_version_is_opened_wherever_the_original_went(self, registry, tmp_path):
        uri = write_toy(tmp_path / "original", 0.9)
        version, _ = add_version(registry, Source(uri))
        serve(registry, version.name)
        expected = score_of(uri)
        for path in (tmp_path / "original").iterdir():
            path.unlink()
        detector = open_detector(f"registry:{registry.folder}")
        assert score_of(f"registry:{registry.folder}@{version.name}") == expected
        assert (detector.info.version, detector.info.card) == (version.name, version.card)
        assert detector.info.provenance["version"] == version.name

    def test_an_ensemble_takes_all_members_with_it(self, registry, tmp_path):
        members = [write_toy(tmp_path / "far" / name, factor) for name, factor in (("one", 0.9), ("two", 0.5))]
        folder = tmp_path / "ensemble"
        folder.mkdir()
        content = {"title": "Both", "members": [f"openvino:../far/{name}" for name in ("one", "two")]}
        (folder / "ensemble.json").write_text(json.dumps(content))
        (folder / "MODEL_CARD.md").write_text("# Both\n")
        version, _ = add_version(registry, Source(f"ensemble:{folder}"))
        expected = (score_of(members[0]) + score_of(members[1])) / 2
        assert score_of(version.uri) == pytest.approx(expected, abs=1e-6)
        assert str(tmp_path / "far") not in (version.folder / "detector" / "ensemble.json").read_text()

    def test_the_same_content_is_the_same_version(self, registry, tmp_path):
        uri = write_toy(tmp_path / "toy", 0.9)
        (first, is_new), (second, again) = (add_version(registry, Source(uri)) for _ in range(2))
        assert (is_new, again, first.name) == (True, False, second.name)
        other, is_new = add_version(registry, Source(uri, parents=(first.name,)))
        assert (is_new, other.name == first.name) == (True, False)

    def test_what_it_comes_from_is_signed(self, registry, tmp_path, models):
        (tmp_path / "train.json").write_text("{}")
        (tmp_path / "train.yaml").write_text("a: 1\n")
        parent = add_toy(registry, 0.3)
        uri = write_toy(tmp_path / "toy", 0.9)
        options = ("--data", tmp_path / "train.json", "--config", tmp_path / "train.yaml", "--parent", parent[-12:])
        assert models("add", uri, *options, "--note", "night run")[0] == 0
        [name] = set(registry.names) - {parent}
        manifest = registry.verify(name).manifest
        assert (manifest.parents, manifest.data.name, manifest.note) == ((parent,), "train.json", "night run")
        assert manifest.files.keys() >= {"configuration/train.yaml", "MODEL_CARD.md", "detector/model.bin"}

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ({"detector": "openvino:nowhere"}, "expected shipped, or scheme:path"),
            ({"data": Path("nowhere")}, "--data nowhere: expected a snapshot, or a file"),
            ({"calibration": "broken"}, "calibration"),
        ],
    )
    def test_what_does_not_fit_adds_nothing(self, registry, tmp_path, source, message):
        (tmp_path / "broken").write_text("{}")
        source = {name: tmp_path / "broken" if value == "broken" else value for name, value in source.items()}
        good = {"detector": write_toy(tmp_path / "toy", 0.9)}
        with pytest.raises(ValueError, match=message):
            add_version(registry, Source(**good | source))
        assert registry.names == []
        assert not list(registry.folder.glob(f"{UNFINISHED}*"))

    def test_a_version_without_a_card_is_refused(self, registry, tmp_path):
        uri = write_toy(tmp_path / "toy", 0.9)
        (tmp_path / "toy" / "MODEL_CARD.md").unlink()
        with pytest.raises(RegistryError, match="no model card beside it; --card names one"):
            add_version(registry, Source(uri))


def test_the_gate_times_and_weighs_versions(two):
    registry, first, second = two
    for uri, name in ((f"registry:{registry.folder}", first), (f"registry:{registry.folder}@{second}", second)):
        folder = registry.path_of(name) / "detector"
        assert set(model_files(uri)) == {folder / "model.xml", folder / "model.bin"}


class TestDamage:
    def test_every_file_of_a_version_counts(self, two):
        registry, first, _ = two
        folder = registry.path_of(first)
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert {path.name for path in files} >= {VERSION_FILE, SIGNATURE_FILE, "model.xml", "model.bin", "SHA256SUMS"}
        for path in files:
            whole = path.read_bytes()
            damaged = bytes([whole[0] ^ 1]) + whole[1:]
            for content in (damaged, whole[:-1] + bytes([whole[-1] ^ 1]), whole + b" ", b"", None):
                path.unlink() if content is None else path.write_bytes(content)
                with pytest.raises(RegistryError, match=path.name):
                    registry.verify(first)
                with pytest.raises(DetectorError, match=path.name):
                    open_detector(f"registry:{registry.folder}")
                path.write_bytes(whole)
            registry.verify(first)

    def test_a_file_too_many_and_a_link_are_refused(self, two):
        registry, first, _ = two
        extra = registry.path_of(first) / "detector" / "config.yaml"
        extra.write_text("")
        with pytest.raises(RegistryError, match=r"config\.yaml: does not belong to the version"):
            registry.verify(first)
        extra.unlink()
        card = registry.path_of(first) / "MODEL_CARD.md"
        card.rename(registry.folder / "card")
        card.symlink_to(registry.folder / "card")
        with pytest.raises(RegistryError, match=r"MODEL_CARD\.md: is no regular file"):
            registry.verify(first)

    def test_another_key_is_not_trusted(self, two, tmp_path, models):
        registry, first, _ = two
        stranger = Registry.at(registry.folder, tmp_path / "strange")
        generate_key(stranger.keys)
        with pytest.raises(RegistryError, match=f"signed by the key .*, which is not trusted; {stranger.keys} has"):
            stranger.verify(first)
        added, _ = add_version(stranger, Source(write_toy(tmp_path / "own", 1.0)))
        with pytest.raises(RegistryError, match=r"version\.sig: signed by the key .*, which is not trusted"):
            serve(registry, added.name)
        assert registry.served_name() == first
        code, out, _ = models("verify")
        assert (code, f"{first}: as it was signed" in out, "3 versions, 1 not as signed" in out) == (1, True, True)

    def test_a_served_version_that_is_gone_is_a_fault(self, two, models):
        registry, first, _ = two
        shutil.rmtree(registry.path_of(first))
        code, out, _ = models("verify")
        assert (code, f"{first}: is served, and its folder is not there" in out) == (1, True)

    @pytest.mark.parametrize("option", ["--without-gate", "--reason"])
    def test_a_reason_is_one_line_of_words(self, two, models, capsys, option):
        registry, _, second = two
        with pytest.raises(SystemExit):
            models("promote", second, option, "  ")
        assert "expected a reason in words" in capsys.readouterr().err
        grounds = [] if option == "--without-gate" else ["--without-gate", "a test"]
        assert models("promote", second, *grounds, option, "one\n2020 forged line")[0] == 0
        change = registry.states.history[-1]
        assert "one 2020 forged line" in (change.reason, change.without_gate)

    def test_a_signature_that_claims_a_trusted_key_is_wrong(self, two):
        registry, first, second = two
        for name, other in ((first, second), (second, first)):
            path = registry.path_of(name) / SIGNATURE_FILE
            own = path.read_bytes()
            path.write_bytes((registry.path_of(other) / SIGNATURE_FILE).read_bytes())
            with pytest.raises(RegistryError, match=r"the signature by .* is wrong"):
                registry.verify(name)
            path.write_bytes(own)

    def test_a_version_under_another_name_is_refused(self, two):
        registry, _, second = two
        registry.path_of(second).rename(registry.path_of(f"2020-01-01-{second[-12:]}"))
        with pytest.raises(RegistryError, match="name: expected that of the folder"):
            registry.verify(f"2020-01-01-{second[-12:]}")

    def test_a_damaged_state_serves_nothing(self, two):
        registry, first, second = two
        path = registry.folder / STATE_FILE
        path.write_text(path.read_text().replace(first, second))
        with pytest.raises(RegistryError, match=r"state\.json: was changed or damaged"):
            registry.served_name()

    def test_the_private_key_is_its_owners_and_never_replaced(self, registry):
        path = registry.keys / PRIVATE_FILE
        assert path.stat().st_mode & 0o777 == 0o600
        before = path.read_bytes()
        with pytest.raises(RegistryError, match="there is a key already"):
            generate_key(registry.keys)
        assert path.read_bytes() == before

    def test_a_former_key_is_trusted_while_its_public_half_is_there(self, two):
        registry, first, _ = two
        (registry.keys / PRIVATE_FILE).unlink()
        [former] = registry.keys.glob("*.pub")
        generate_key(registry.keys)
        later = add_toy(registry, 0.1)
        registry.verify(first), registry.verify(later)
        former.unlink()
        with pytest.raises(RegistryError, match="not trusted"):
            registry.verify(first)
        registry.verify(later)


class TestPromotion:
    def test_the_gate_must_have_judged_these_very_files(self, two, models, tmp_path):
        registry, first, second = two
        served, candidate = registry.read(first), registry.read(second)
        other, right = registry.read(add_toy(registry, 0.1)), verdict_on(served, candidate)
        for wrong, message in (
            (verdict_on(served, candidate, promote=False), "the gate did not let it pass: AP50 falls"),
            (verdict_on(served, other), "the verdict is about another candidate detector"),
            (verdict_on(other, candidate), "the verdict is about another served detector"),
            (verdict_on(served, candidate, calibration="c" * 64), "the gate judged the candidate calibration cccc"),
            (verdict_on(served, candidate, served_calibration="c" * 64), "the gate judged the served calibration cccc"),
            (
                replace(right, reasons=["AP50 lost"]),
                "contradicts itself: it lets the candidate pass in spite of AP50 lost",
            ),
            (replace(right, checks=[Check("strata", FAILED, "")]), "in spite of strata"),
            (replace(right, checks=[Check("leaks", NOT_JUDGED, "")]), "in spite of leaks"),
            (replace(right, tests=[]), "the verdict rests on no test"),
        ):
            path = write_verdict(tmp_path / "verdict.json", wrong)
            code, _, errors = models("promote", second, "--verdict", path)
            assert (code, message in errors) == (1, True), errors
            assert registry.served_name() == first
        assert "there is no verdict on it" in models("promote", second)[2]
        path = write_verdict(tmp_path / "verdict.json", right)
        assert models("promote", second[-12:-6], "--verdict", tmp_path)[0] == 0
        states = registry.states
        assert (states.served, states.of(first)) == (second, RETIRED)
        kept = registry.folder / "verdicts" / f"{states.history[-1].verdict}.json"
        assert kept.read_bytes() == path.read_bytes()

    def test_a_verdict_in_the_version_is_enough(self, two, models, tmp_path):
        registry, first, _ = two
        uri = write_toy(tmp_path / "third", 0.7)
        draft, _ = add_version(registry, Source(uri))
        path = write_verdict(tmp_path / "verdict.json", verdict_on(registry.read(first), draft))
        version, _ = add_version(registry, Source(uri, verdict=path))
        assert models("promote", version.name)[0] == 0
        assert registry.served_name() == version.name

    def test_without_the_gate_the_reason_is_kept(self, registry, models):
        first = add_toy(registry, 0.9)
        path = write_verdict(registry.folder / "v", verdict_on(registry.read(first), registry.read(first)))
        assert "nothing is served yet" in models("promote", first, "--verdict", path)[2]
        assert models("promote", first, "--without-gate", "the first one")[0] == 0
        change = registry.states.history[-1]
        assert (change.action, change.without_gate, change.verdict) == ("promote", "the first one", None)
        assert (change.by, change.at[:2]) == (registry.by, "20")
        assert "without the gate: the first one" in models("show", first)[1]

    def test_the_way_back_is_one_command_as_often_as_there_is_one(self, two, models):
        registry, first, second = two
        third = add_toy(registry, 0.1)
        serve(registry, second)
        serve(registry, third)
        for expected, retired in ((second, third), (first, second)):
            assert models("rollback", "--reason", "false alarms")[0] == 0
            assert (registry.served_name(), registry.states.of(retired)) == (expected, RETIRED)
        assert "no version was served before" in models("rollback")[2]
        assert [change.action for change in registry.states.history] == ["promote"] * 3 + ["rollback"] * 2

    def test_a_damaged_version_that_is_served_is_listed_and_can_be_replaced(self, two, models):
        registry, first, second = two
        (registry.path_of(first) / VERSION_FILE).write_text("{")
        code, out, _ = models("list")
        assert (code, f"| {first} | served |  | damaged: see verify" in out) == (0, True)
        assert models("promote", second, "--without-gate", "the other is damaged")[0] == 0
        assert registry.served_name() == second

    def test_no_way_back_to_a_damaged_version(self, two):
        registry, first, second = two
        serve(registry, second)
        (registry.path_of(first) / "MODEL_CARD.md").write_text("")
        with pytest.raises(RegistryError, match=r"MODEL_CARD\.md: was changed"):
            registry.rollback()
        assert registry.served_name() == second

    @pytest.mark.parametrize("which", [0, 1])
    def test_a_pinned_version_stays_what_it_is(self, two, models, which):
        registry, first, second = two
        pinned = (first, second)[which]
        assert models("pin", pinned, "--reason", "a study runs")[0] == 0
        code, _, errors = models("promote", second, "--without-gate", "x")
        assert (code, f"{pinned}: is pinned (a study runs)" in errors) == (1, True)
        assert "pinned" in models("list")[1]
        assert models("pin", pinned, "--off")[0] == 0
        assert models("promote", second, "--without-gate", "x")[0] == 0
        assert registry.served_name() == second

    def test_one_shadow_at_a_time_and_none_that_is_served(self, two, models):
        registry, first, second = two
        third = add_toy(registry, 0.1)
        assert "it is served" in models("shadow", first)[2]
        for name in (second, third):
            assert models("shadow", name)[0] == 0
        assert [registry.states.of(name) for name in (first, second, third)] == [SERVED, CANDIDATE, SHADOW]
        assert models("shadow", "--stop")[0] == 0
        assert registry.states.of(third) == CANDIDATE
        assert models("retire", third)[0] == 0
        assert "it is retired" in models("promote", third, "--without-gate", "x")[2]
        assert "it is served" in models("retire", first)[2]


def promote_in_process(folder, name, barrier):
    """Promote by a verdict against what is served now, as of before the barrier."""
    registry = Registry.at(folder)
    expected = registry.served_name()
    barrier.wait()

    def judge(served, _candidate):
        time.sleep(0.2)  # the other one comes meanwhile
        if served != expected:
            raise RegistryError("the verdict is about another served detector")
        return Grounds(verdict=b"{}")

    try:
        registry.promote(name, judge)
    except RegistryError:
        sys.exit(1)


def test_of_two_promotions_at_once_the_second_sees_the_first(two):
    registry, first, second = two
    third = add_toy(registry, 0.1)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [
        context.Process(target=promote_in_process, args=(registry.folder, name, barrier)) for name in (second, third)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert sorted(process.exitcode for process in processes) == [0, 1]
    states = registry.states
    assert states.served == (second, third)[processes[1].exitcode == 0]
    assert (states.before, len(states.history)) == ((first,), 2)


def test_what_a_killed_add_left_is_removed_by_the_next_one(registry):
    left = registry.folder / f"{UNFINISHED}x"
    (left / "detector").mkdir(parents=True)
    name = add_toy(registry, 0.9)
    assert (left.exists(), registry.names) == (False, [name])
