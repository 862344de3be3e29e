"""What a node beside a PACS does with objects that are damaged, and with one that is far too large, by C-STORE.

    .venv/bin/python benchmarks/pacs_objects.py --damaged 5000 --large-gb 3

A drawn radiograph in every transfer syntax that can be made here is damaged at random in nine ways and sent as it is,
at several associations, to a node that is a process of its own (with a detector that finds bright rectangles, since
what is measured is everything but the detector). It answers to dcmtk's storescp and into a FHIR folder. Then one object
of --large-gb, from a sparse file, and a sound one in the same association. Exit code 1 where an object gets no status,
one that was taken has neither an answer nor a sentence, or the log has a traceback. Needs dcmtk (make test-deps).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from tests.pacs.damaged_objects import (
    account,
    associate,
    damaged_objects,
    is_idle,
    memory_kb,
    node_with_archive,
    send_objects,
    sending_files_as_they_are,
)
from tests.pacs.films import dicom_object, write
from tests.pacs.programs import RunningNode, wait_for

DAY_S = 86_400.0
PIXEL_DATA = b"\xe0\x7f\x10\x00OW\0\0"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--damaged", type=int, default=5_000, metavar="N", help="damaged objects (default: 5,000)")
    parser.add_argument("--large-gb", type=float, default=3.0, help="0: none (default: 3)")
    parser.add_argument("--associations", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    args = build_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with node_with_archive(folder, ("sr", "gsps", "sc")) as node:
            faults = _damaged(node, folder, args) if args.damaged else 0
            faults += _large(node, folder, args.large_gb) if args.large_gb else 0
        log = node.log.read_text(encoding="utf-8")
    if "Traceback" in log:
        faults += 1
        print(log, file=sys.stderr)
    print(f"{faults} faults; {log.count('Traceback')} tracebacks in {len(log.splitlines()):,} lines of the log")
    return 1 if faults else 0


def _damaged(node: RunningNode, folder: Path, args: argparse.Namespace) -> int:
    objects = list(damaged_objects(args.damaged, seed=args.seed, folder=folder))
    before, begun = memory_kb(node, "VmRSS"), time.time()
    statuses = send_objects(node.port, objects, folder, associations=args.associations)
    sent = time.time() - begun
    wait_for(lambda: is_idle(node), "an empty queue", DAY_S)
    outcome = account(node, statuses)
    print(f"{len(statuses):,} damaged objects sent in {sent:.0f} s, all done after {time.time() - begun:.0f} s")
    for status, count in sorted(outcome.statuses.items(), key=str):
        print(f"| {'no answer' if status is None else f'{status:04X}'} | {count:,} |")
    for said, count in sorted(outcome.said.items()):
        print(f"| {said} | {count:,} |")
    print(f"memory of the node: {before / 1000:.0f} MB before, {memory_kb(node, 'VmHWM') / 1000:.0f} MB at most")
    print(f"{len(outcome.unaccounted)} objects unaccounted for", *outcome.unaccounted[:20], sep="\n")
    return len(outcome.unaccounted) + outcome.statuses[None] + (len(statuses) != args.damaged)


def _large(node: RunningNode, folder: Path, size_gb: float) -> int:
    """Send an object of so many GB, and then a sound one."""
    plate = np.zeros((400, 300), np.uint8)
    path = write(dicom_object(plate, 9_001), folder / "large.dcm")
    size = int(size_gb * 1e9) // 2 * 2
    content = path.read_bytes()
    with path.open("wb") as file:
        file.write(content[: content.rindex(PIXEL_DATA[:4])] + PIXEL_DATA + size.to_bytes(4, "little"))
        file.truncate(file.tell() + size)  # sparse: it takes no room on the disk
    sound = write(dicom_object(plate, 9_002), folder / "sound.dcm")
    before, most, done = memory_kb(node, "VmRSS"), [0, 0], threading.Event()

    def watch() -> None:
        spool = node.folder / "data" / "pacs"
        while not done.wait(0.05):
            files = [one for one in (spool / "incoming").glob("*") if one.exists()]
            most[0] = max(most[0], sum(one.stat().st_blocks * 512 for one in files if one.exists()))
            most[1] = max(most[1], memory_kb(node, "VmRSS"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.time()
    with sending_files_as_they_are():
        association = associate(node.port)
        refused = association.send_c_store(path).get("Status")
        seconds = time.time() - begun
        taken = association.send_c_store(sound).get("Status") if association.is_established else None
        association.release()
    done.set()
    watcher.join()
    print(f"an object of {path.stat().st_size / 1e9:.2f} GB: status {refused or 0:04X} after {seconds:.0f} s")
    print(f"memory of the node {before / 1000:.0f} MB before, {most[1] / 1000:.0f} MB at most")
    print(f"its spool held {most[0] / 1e6:.0f} MB at most")
    print(f"the next object in the same association: {'no answer' if taken is None else f'{taken:04X}'}")
    return (refused != 0xA701) + (taken != 0)


if __name__ == "__main__":
    sys.exit(main())
