"""Studies through the node beside a PACS: storescu at several associations, Orthanc as the archive, an MLLP server.

    .venv/bin/python benchmarks/pacs.py --studies 100 --associations 8

Needs Orthanc and dcmtk (make test-deps) and the packages of requirements/dev.txt. The delay of a study is from the
beginning of its C-STORE to its last output in Orthanc, with a quiet time of 0.5 s.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from PIL import Image

from tests.pacs.films import dicom_object, drawn_pixels, example_pixels, write
from tests.pacs.programs import MllpServer, Orthanc, RunningNode, storescu, wait_for
from tests.pacs.test_whole import CONFIG


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--associations", type=int, default=8)
    parser.add_argument("--images", type=Path, help="a folder of JPEG radiographs in place of drawn ones")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure once and print a table."""
    args = build_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = _films(folder, args)
        orthanc, mllp = Orthanc(folder / "orthanc"), MllpServer()
        config = CONFIG.format(archive=orthanc.port, ris=mllp.port)
        node = RunningNode(folder / "node", config).start()
        try:
            _measure(node, orthanc, mllp, films, args.associations)
        finally:
            node.stop()
            orthanc.close()
            mllp.close()
    return 0


def _films(folder: Path, args: argparse.Namespace) -> list[Path]:
    (folder / "films").mkdir()
    paths = sorted(args.images.rglob("*.jpg"))[: args.studies] if args.images else []
    pixels = [np.asarray(Image.open(path).convert("L")) for path in paths]
    pixels = pixels or [example_pixels(), *(drawn_pixels(seed) for seed in range(args.studies - 1))]
    return [write(dicom_object(one, n), folder / "films" / f"{n}.dcm") for n, one in enumerate(pixels, start=1)]


def _measure(node: RunningNode, orthanc: Orthanc, mllp: MllpServer, films: list[Path], associations: int) -> None:
    from pydicom import dcmread

    study_of = {film: str(dcmread(film, stop_before_pixels=True).StudyInstanceUID) for film in films}
    sent: dict[str, float] = {}
    peak = [0]
    done = threading.Event()

    def send(share: list[Path]) -> None:
        for film in share:
            sent[study_of[film]] = time.time()
            storescu(node.port, [film], calling="STORESCU")

    def watch() -> None:
        while not done.wait(1):
            status = Path(f"/proc/{node.pid}/status").read_text()
            peak[0] = max(peak[0], int(status.partition("VmHWM:")[2].split()[0]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.time()
    threads = [threading.Thread(target=send, args=(films[n::associations],)) for n in range(associations)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.time() - began
    wait_for(lambda: len(orthanc.answers()) == len(films) and _is_complete(orthanc), "all answers", 3600)
    ended = time.time()
    done.set()
    watcher.join()
    delays = sorted(_last_output(orthanc, study) - moment for study, moment in sent.items())
    print(f"{len(films)} studies at {associations} associations, taken in {taken:.0f} s")
    print(f"all answered in {ended - began:.0f} s: {60 * len(films) / (ended - began):.1f} studies per minute")
    print(f"delay p50 {np.percentile(delays, 50):.1f} s, p95 {np.percentile(delays, 95):.1f} s")
    print(f"memory of the node at its peak {peak[0] / 1000:.0f} MB; {len(mllp.messages)} messages")


def _is_complete(orthanc: Orthanc) -> bool:
    return all(len(objects) == 3 for objects in orthanc.answers().values())


def _last_output(orthanc: Orthanc, study: str) -> float:
    [identifier] = orthanc.post("/tools/find", {"Level": "Study", "Query": {"StudyInstanceUID": study}})
    times = []
    for instance in orthanc.get(f"/studies/{identifier}/instances"):
        received = orthanc.get(f"/instances/{instance['ID']}/metadata?expand")["ReceptionDate"]
        times.append(datetime.strptime(received + "+0000", "%Y%m%dT%H%M%S%z").timestamp())
    return max(times)


if __name__ == "__main__":
    sys.exit(main())
