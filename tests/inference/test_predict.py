"""An archive: what a kill leaves is gone on with, shards join, tables say the same, and Ray loses nothing."""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from fracture_det.data.predictions import PredictionsError, read_predictions, stream_predictions
from fracture_det.inference import predict
from fracture_det.inference.prediction_folder import Shard, ShardError, predict_to_folder
from fracture_det.inference.ray import ClusterError, predict_on_cluster, processors_each
from fracture_det.inference.registry import DETECTORS, open_detector
from fracture_det.structures.image_files import find_images
from tests.inference.toys import BrightDetector, open_bright, open_never, open_slow
from tests.paths import FRACATLAS, present
from tools.predict import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def radiographs(tmp_path):
    """Eleven images with a box each, one that cannot be read and one on which the detector fails."""
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(11):
        pixels = np.full((40, 60), 30, np.uint8)
        pixels[10 : 20 + index, 10:30] = 250
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    Image.fromarray(np.zeros((20, 13), np.uint8)).save(folder / "thirteen.png")
    (folder / "broken.jpg").write_bytes(b"nothing")
    return folder


@pytest.fixture
def run(radiographs, tmp_path, monkeypatch):
    """Run the tool with the bright detector on the radiographs; return its exit code."""
    monkeypatch.setitem(DETECTORS, "bright", "tests.inference.toys:open_bright")

    def call(*arguments, out="out", detector="bright:0.5"):
        given = ["--detector", detector, "--input", str(radiographs), "--out", str(tmp_path / out), "--no-overlays"]
        return main([*given, "--force", *arguments])  # these are no radiographs

    return call


def lines(path):
    return sorted(path.read_text().splitlines())


class TestResume:
    def test_it_goes_on_where_a_kill_tore_the_file(self, run, tmp_path, capsys):
        run(out="whole")
        whole = (tmp_path / "whole" / "predictions.jsonl").read_bytes()
        (tmp_path / "out").mkdir()
        torn = whole[: len(whole) * 2 // 3]
        assert not torn.endswith(b"\n")
        (tmp_path / "out" / "predictions.jsonl").write_bytes(torn)
        assert run("--resume") == 1
        assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == whole
        assert (tmp_path / "out" / "predictions.csv").read_bytes() == (tmp_path / "whole/predictions.csv").read_bytes()
        n_whole = len(torn.splitlines()) - 2  # without header and torn line
        said = capsys.readouterr()
        assert f"{n_whole} were done before" in said.out
        assert "predictions.jsonl: the last line is incomplete; its image is predicted again" in said.err

    def test_a_torn_header_is_begun_anew(self, run, tmp_path):
        run(out="whole")
        whole = (tmp_path / "whole" / "predictions.jsonl").read_bytes()
        (tmp_path / "out").mkdir()
        for torn in (b"", whole[:30]):
            (tmp_path / "out" / "predictions.jsonl").write_bytes(torn)
            run("--resume")
            assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == whole

    def test_the_end_of_the_last_line_is_found_from_behind(self, run, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr("fracture_det.data.prediction_writer.BLOCK", 7)
        self.test_a_torn_header_is_begun_anew(run, tmp_path)
        path = tmp_path / "out" / "predictions.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole[:-40])
        run("--resume")
        assert path.read_bytes() == whole
        assert "12 were done before" in capsys.readouterr().out

    def test_done_is_done(self, radiographs, tmp_path):
        files = find_images(radiographs).files
        for expected in ([1] * 12, []):  # thirteen fails alone; the broken file never comes to the detector
            detector = BrightDetector()
            done = predict_to_folder(detector, files, tmp_path / "out", resuming=True, overlays=False, progress=False)
            assert detector.batches == expected
            assert (done.predicted, done.failed) == (11, 2)

    def test_another_detector_is_refused_and_nothing_lost(self, run, tmp_path, capsys):
        run()
        before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
        assert run("--resume", detector="bright:0.7") == 2
        assert "line 1, operating_score: another run wrote 0.5, this one has 0.7" in capsys.readouterr().err
        assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before

    @pytest.mark.parametrize("detector", ["bright:0.7", "bright:"])
    def test_what_is_refused_is_left_as_it_was(self, run, tmp_path, detector):
        run()
        path = tmp_path / "out" / "predictions.jsonl"
        torn = path.read_bytes()[:-20]
        path.write_bytes(torn)
        assert run("--resume", detector=detector) == 2
        assert path.read_bytes() == torn

    def test_a_file_of_somebody_else_is_left_as_it_was(self, run, tmp_path, capsys):
        path = tmp_path / "out" / "predictions.jsonl"
        path.parent.mkdir()
        path.write_text("my notes")
        assert run("--resume") == 2
        assert "line 1, header: another run wrote 'my notes'" in capsys.readouterr().err
        assert path.read_text() == "my notes"

    def test_other_files_of_the_same_names_are_refused(self, run, radiographs, tmp_path, capsys):
        run()
        before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
        Image.fromarray(np.full((70, 90), 200, np.uint8)).save(radiographs / "03.png")
        assert run("--resume") == 2
        assert "line 1, archive: another run wrote {'images': 13" in capsys.readouterr().err
        (radiographs / "03.png").unlink()
        assert run("--resume") == 2
        assert "this one has {'images': 12" in capsys.readouterr().err
        assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before

    def test_a_link_that_leads_nowhere_fails_as_a_file(self, run, radiographs, tmp_path):
        (radiographs / "lost.png").symlink_to(radiographs / "nowhere.png")
        assert run() == 1
        failed = {image.file_name for image in read_predictions(tmp_path / "out/predictions.jsonl").failed}
        assert failed == {"broken.jpg", "lost.png", "thirteen.png"}

    def test_without_it_a_run_begins_anew(self, run, tmp_path):
        run()
        before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
        run()
        assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before

    def test_a_line_that_is_whole_and_broken_is_an_error(self, run, tmp_path, capsys):
        run()
        path = tmp_path / "out" / "predictions.jsonl"
        path.write_text(path.read_text().replace('"height": 40', '"height": "x"', 1))
        assert run("--resume") == 2
        assert "predictions.jsonl, line 2, height: expected a whole number or null, got 'x'" in capsys.readouterr().err

    def test_a_killed_process_has_drawn_what_it_wrote(self, radiographs, tmp_path):
        code = (
            "import sys; from tests.inference.toys import open_slow; from pathlib import Path\n"
            "from fracture_det.inference.prediction_folder import predict_to_folder\n"
            "from fracture_det.structures.image_files import find_images\n"
            "files = find_images(sys.argv[1]).files\n"
            "predict_to_folder(open_slow('0.3'), files, Path(sys.argv[2]), progress=False)"
        )
        process = subprocess.Popen([sys.executable, "-c", code, str(radiographs), str(tmp_path / "out")], cwd=ROOT)
        path = tmp_path / "out" / "predictions.jsonl"
        while not path.is_file() or path.read_text().count("\n") < 4:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        written = [json.loads(line)["file_name"] for line in path.read_text().splitlines()[1:]]
        drawn = {file.name.removesuffix(".overlay.jpg") for file in (tmp_path / "out" / "overlays").iterdir()}
        assert set(written) <= drawn
        predict_to_folder(
            open_slow("0"), find_images(radiographs).files, tmp_path / "out", resuming=True, progress=False
        )
        assert len(read_predictions(path).images) == 13


class TestShards:
    def test_they_are_disjoint_whole_and_the_same_everywhere(self):
        files = [(f"{index}.png", Path(f"{index}.png")) for index in range(10)]
        parts = [Shard(index, 3).take(files) for index in (1, 2, 3)]
        assert [len(part) for part in parts] == [4, 3, 3]
        assert sorted(file for part in parts for file in part) == files

    def test_joined_they_are_the_whole(self, run, tmp_path):
        run(out="whole")
        for index in (1, 2, 3):
            run("--shard", f"{index}/3")
        assert main(["--join", "--out", str(tmp_path / "out")]) == 1  # two files could not be predicted
        assert lines(tmp_path / "out" / "predictions.jsonl") == lines(tmp_path / "whole" / "predictions.jsonl")
        assert lines(tmp_path / "out" / "predictions.csv") == lines(tmp_path / "whole" / "predictions.csv")

    def test_a_missing_or_foreign_one_is_named(self, run, tmp_path, capsys):
        run("--shard", "1/2")
        assert main(["--join", "--out", str(tmp_path / "out")]) == 2
        assert "expected all shards of one number, got shard-1-of-2" in capsys.readouterr().err
        run("--shard", "2/2", detector="bright:0.7")
        assert main(["--join", "--out", str(tmp_path / "out")]) == 2
        assert "operating_score: the shards are of different detectors or files" in capsys.readouterr().err

    @pytest.mark.parametrize("kept", [3, 2.5], ids=["between lines", "in a line"])
    def test_one_that_is_not_done_is_named_and_nothing_written(self, run, tmp_path, capsys, kept):
        for index in (1, 2):
            run("--shard", f"{index}/2")
        path = tmp_path / "out" / "shard-1-of-2" / "predictions.jsonl"
        written = path.read_text().splitlines(keepends=True)
        path.write_text("".join(written[: int(kept)]) + (written[int(kept)][:9] if kept % 1 else ""))
        assert main(["--join", "--out", str(tmp_path / "out")]) == 2
        assert f"expected 7 images, got {int(kept) - 1}" in capsys.readouterr().err
        assert not (tmp_path / "out" / "predictions.jsonl").exists()
        run("--shard", "1/2", "--resume")
        assert main(["--join", "--out", str(tmp_path / "out")]) == 1

    def test_an_archive_that_grew_between_them_is_refused(self, run, radiographs, tmp_path, capsys):
        run("--shard", "1/2")
        Image.fromarray(np.zeros((20, 20), np.uint8)).save(radiographs / "0.png")  # moves all others to the other shard
        run("--shard", "2/2")
        assert main(["--join", "--out", str(tmp_path / "out")]) == 2
        assert "archive: the shards are of different detectors or files" in capsys.readouterr().err

    def test_a_shard_in_the_place_of_another_is_named(self, run, tmp_path, capsys):
        run("--shard", "1/2")
        (tmp_path / "out/shard-1-of-2").rename(tmp_path / "out/shard-2-of-2")
        run("--shard", "1/2")
        assert main(["--join", "--out", str(tmp_path / "out")]) == 2
        assert "shard-2-of-2/predictions.jsonl, line 1, archive: expected shard 2/2" in capsys.readouterr().err

    def test_a_joined_score_is_a_share(self, run, tmp_path, capsys):
        run("--shard", "1/1")
        assert main(["--join", "--out", str(tmp_path / "out"), "--score", "50"]) == 2
        assert "expected 0..1, got 50" in capsys.readouterr().err

    @pytest.mark.parametrize("text", ["3", "0/2", "3/2", "a/b", "1/2/3", "-1/2"])
    def test_what_is_no_shard_is_said(self, text, run, capsys):
        assert run(f"--shard={text}") == 2
        assert "--shard: expected I/N" in capsys.readouterr().err
        with pytest.raises(ShardError):
            Shard.parse(text)


class TestParquet:
    def test_it_holds_every_box_with_types(self, run, tmp_path):
        pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed; make setup brings it")
        run("--parquet")
        table = pq.read_table(tmp_path / "out" / "predictions.parquet")
        kinds = {field.name: str(field.type) for field in table.schema}
        assert kinds["file_name"] == kinds["error"] == "string"
        assert (kinds["height"], kinds["score"], kinds["x0_px"]) == ("int32", "float", "float")
        assert json.loads(table.schema.metadata[b"class_names"].decode().replace("'", '"')) == ["fracture"]
        rows = table.to_pylist()
        images = {image.file_name: image for image in read_predictions(tmp_path / "out/predictions.jsonl").images}
        assert {row["file_name"] for row in rows} == set(images)
        for name, image in images.items():
            own = [row for row in rows if row["file_name"] == name]
            if image.error is not None:
                assert [(row["status"], row["error"]) for row in own] == [("error", image.error)]
            else:
                assert [row["score"] for row in own] == image.detections.scores.tolist()
                assert [[row[k] for k in ("x0_px", "y0_px", "x1_px", "y1_px")] for row in own] == (
                    image.detections.boxes.tolist()
                )

    def test_row_groups_are_bounded(self, run, tmp_path, monkeypatch):
        pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed; make setup brings it")
        monkeypatch.setattr("fracture_det.inference.prediction_tables.ROW_GROUP", 5)
        run("--parquet")
        file = pq.ParquetFile(tmp_path / "out" / "predictions.parquet")
        assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [5, 5, 5, 5, 4]


class TestFilesThatAreNotRead:
    @pytest.fixture
    def archive(self, radiographs):
        for number in range(12):
            (radiographs / f"{number:02}.gif").write_bytes(b"GIF89a")
        (radiographs / "new\nline.png").write_bytes((radiographs / "00.png").read_bytes())
        (radiographs / "x=cmd,1.png").write_bytes((radiographs / "00.png").read_bytes())
        (radiographs / "broken.jpg").unlink()
        (radiographs / "thirteen.png").unlink()
        return radiographs

    def test_they_are_named_and_counted_and_no_failure(self, archive, run, tmp_path, capsys):
        table = tmp_path / "out" / "skipped.csv"
        assert run() == 0
        said = capsys.readouterr().out
        assert f"25 files found: 13 radiographs, 12 not read (all of them in {table}):\n  00.gif: a GIF image" in said
        assert "  09.gif: a GIF image, which is not read\n  and 2 more\n" in said
        rows = [f'{number:02}.gif,"a GIF image, which is not read"' for number in range(12)]
        assert table.read_text().splitlines() == ["file,reason", *rows]
        with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
            names = {row[0] for row in csv.reader(file)}
        assert {"new\nline.png", "x=cmd,1.png"} <= names
        for path in archive.glob("*.gif"):
            path.unlink()
        assert run() == 0
        assert "13 files found, all radiographs" in capsys.readouterr().out
        assert not table.exists()

    def test_shards_and_their_join_name_them_too(self, archive, run, tmp_path):
        for shard in ("1/2", "2/2"):
            run("--shard", shard)
        assert main(["--join", "--out", str(tmp_path / "out")]) == 0
        assert len((tmp_path / "out" / "skipped.csv").read_text().splitlines()) == 13

    def test_nothing_but_them_is_an_error_that_says_so(self, archive, run, capsys):
        for path in archive.glob("*.png"):
            path.unlink()
        assert run() == 2
        assert "in: no image that can be read; 12 GIF images (.gif) are not read" in capsys.readouterr().err


def test_a_stream_holds_one_image_at_a_time(run, tmp_path):
    run()
    path = tmp_path / "out" / "predictions.jsonl"
    header, images = stream_predictions(path)
    assert header["detector"] == "bright"
    assert next(images).file_name == "00.png"
    path.write_text(path.read_text().splitlines()[0] + "\n{}\n")
    with pytest.raises(PredictionsError, match="line 2, file_name: missing"):
        list(stream_predictions(path)[1])


def test_input_and_join_exclude_each_other(tmp_path, capsys):
    for arguments in ([], ["--join", "--input", "x"]):
        with pytest.raises(SystemExit):
            main([*arguments, "--out", str(tmp_path)])
        assert "give --input, or --join" in capsys.readouterr().err


# machines' processors, workers -> processors of each, by hand
SHARES = [
    ([2], 2, 1 / 2),  # two of a half leave one
    ([2], 1, 1),
    ([1], 1, 1 / 2),  # of a single one, half stays free
    ([16], 2, 7),  # 2 * 7 of 16
    ([4, 4], 1, 4),  # seven would fit on no machine
    ([3, 3, 3], 4, 1),  # of two, only one would fit on each machine
    ([0, 2], 40, 1 / 40),  # a head without processors of its own
]


@pytest.mark.parametrize(("processors", "workers", "each"), SHARES)
def test_workers_fit_on_machines_and_leave_a_processor(processors, workers, each):
    assert processors_each(processors, workers) == each


def test_a_cluster_without_processors_is_said():
    with pytest.raises(ClusterError, match=r"no processors; its machines have \[0\]"):
        processors_each([0], 2)


@pytest.mark.slow
# Not importorskip: ray reads whether it is to ask for a token when it is imported, which predict_on_cluster prepares.
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="ray is not installed; make setup brings it")
class TestRay:
    def test_two_workers_say_the_same_as_one_process(self, radiographs, tmp_path):
        files = find_images(radiographs).files
        opener = partial(open_bright, "0.5")
        predict_to_folder(opener(), files, tmp_path / "local", progress=False)
        engine = partial(predict_on_cluster, opener, workers=2)
        done = predict_to_folder(opener(), files, tmp_path / "ray", engine=engine, progress=False)
        assert (done.predicted, done.failed) == (11, 2)
        for name in ("predictions.jsonl", "predictions.csv"):
            assert lines(tmp_path / "ray" / name) == lines(tmp_path / "local" / name)

    @pytest.mark.real
    def test_so_it_is_with_the_shipped_detector(self, tmp_path, monkeypatch):
        folder = present(FRACATLAS / "images/Fractured")
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as Ray gives its workers; sums depend on the number of threads
        opener = partial(open_detector, "shipped")
        files = find_images(folder).files[:200:18]
        predict_to_folder(opener(), files, tmp_path / "local", progress=False)
        engine = partial(predict_on_cluster, opener, workers=2)
        predict_to_folder(opener(), files, tmp_path / "ray", engine=engine, progress=False)
        found = lines(tmp_path / "ray" / "predictions.jsonl")
        assert found == lines(tmp_path / "local" / "predictions.jsonl")
        assert sum(len(json.loads(line).get("detections", ())) for line in found) > 20

    def test_a_killed_worker_loses_nothing(self, radiographs, tmp_path):
        pids = tmp_path / "pids"
        pids.mkdir()
        killed = []

        def kill_the_first():
            while not (begun := list(pids.iterdir())):
                time.sleep(0.05)
            time.sleep(1)  # in the middle of its first files
            killed.append(begun[0].name)
            os.kill(int(begun[0].name), signal.SIGKILL)

        threading.Thread(target=kill_the_first).start()
        files = find_images(radiographs).files * 2
        opener = partial(open_slow, "0.4", pids=pids)
        found = [json.loads(line)["file_name"] for line in predict_on_cluster(opener, files, workers=2)]
        assert sorted(found) == sorted(name for name, _ in files)
        assert len(killed) == 1
        assert {path.name for path in pids.iterdir()} > set(killed)  # others did its work

    def test_strangers_need_a_token_and_nothing_is_left_running(self, radiographs):
        me = psutil.Process()
        before = set(me.children(recursive=True))
        running = predict_on_cluster(partial(open_bright, ""), find_images(radiographs).files, workers=2)
        next(running)
        own = set(me.children(recursive=True)) - before
        assert {"gcs_server", "raylet"} <= {process.name() for process in own}
        assert _code_of_a_stranger() == 1
        list(running)
        assert psutil.wait_procs(own, timeout=60)[1] == []

    def test_a_worker_that_cannot_open_its_detector_is_said_in_one_line(self, radiographs):
        with pytest.raises(ClusterError, match=r"^a Ray worker failed: .*no weights on this machine$"):
            list(predict_on_cluster(open_never, find_images(radiographs).files, workers=1))

    def test_a_number_of_workers(self):
        with pytest.raises(ClusterError, match="--workers: expected at least 1, got 0"):
            list(predict_on_cluster(partial(open_bright, ""), [], workers=0))


def _code_of_a_stranger():
    """Return the exit code of a program that runs something on the cluster of this process, without its token."""
    import ray

    address = ray.get_runtime_context().gcs_address
    code = (
        f"import ray; ray.init({address!r}, log_to_driver=False); ray.get(ray.remote(num_cpus=.1)(lambda: 1).remote())"
    )
    known = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run([sys.executable, "-c", code], env=known, capture_output=True).returncode


def test_a_folder_that_cannot_be_written_is_said_in_one_line(run, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert run() == 2
    assert capsys.readouterr().err.startswith("predict: ")


def test_without_ray_it_is_said_what_to_install(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run("--engine", "ray") == 2
    assert "--engine ray: it needs ray, which is not installed" in capsys.readouterr().err


def test_engines_are_those_of_the_tool():
    assert predict.ENGINES == ("local", "ray")
