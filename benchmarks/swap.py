"""How long a change of the served version takes under load, and whether any upload is lost.

    .venv/bin/python benchmarks/swap.py datasets/fracatlas/images/Fractured --clients 1 --pause-s 4

makes a registry of two versions of the shipped detector in a temporary folder, serves one, and lets clients upload
radiographs one after the other. Meanwhile it promotes the other and rolls back, in turns, each by the command, and
prints the seconds from its start to the first answer by the new version, what the uploads took, and how many were
answered.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from fracture_det.cli.models import main as models
from fracture_det.inference.registry import SHIPPED
from fracture_det.registry.registry import Registry

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Answer:
    """One upload: when it was sent and answered (s), its status, and which version answered."""

    sent: float
    answered: float
    status: int
    version: str | None


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="a folder of radiographs")
    parser.add_argument("--clients", type=int, default=2, help="uploads at a time (default: 2)")
    parser.add_argument("--changes", type=int, default=6, help="promotions and ways back together (default: 6)")
    parser.add_argument("--pause-s", type=float, default=10.0, help="seconds between them (default: 10)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run it and print what was measured."""
    arguments = build_parser().parse_args(argv)
    files = [path.read_bytes() for path in sorted(arguments.images.glob("*.jpg"))[:20]]
    with tempfile.TemporaryDirectory() as folder:
        registry = prepare(Path(folder))
        with Page(registry, Path(folder)) as address:
            load = Load(address, files, arguments.clients)
            seconds = [change(registry, load, number, arguments.pause_s) for number in range(arguments.changes)]
            answers = load.stop()
    report(seconds, answers)
    return 0


def prepare(folder: Path) -> Registry:
    """Return a registry of two versions of the shipped detector, the first served."""
    os.environ["FRACTURE_MODELS"] = str(folder / "models")
    calibration = ["--calibration", str(SHIPPED / "calibration.json")]
    models(["keygen"])
    models(["add", "shipped", *calibration])
    models(["add", "shipped", *calibration, "--config", str(ROOT / "configs" / "gate.yaml")])
    registry = Registry.at()
    models(["promote", registry.names[0], "--without-gate", "a benchmark"])
    return registry


class Page:
    """The page as a process; gives its address."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        own = {"FRACTURE_DATA_DIR": str(folder / "instance"), "FRACTURE_UPLOADS_PER_MINUTE": "0"}
        command = [sys.executable, "-u", "-m", "webapp", "--port", "0", "--detector", f"registry:{registry.folder}"]
        environ = {**os.environ, **own, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(r"(http://\S+) \(detector", line):
                return found[1]
        raise SystemExit("the page did not start")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


class Load:
    """Clients that upload until they are stopped."""

    def __init__(self, address: str, files: list[bytes], clients: int) -> None:
        self._address, self._files, self.answers = address, files, list[Answer]()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[Answer]:
        """Return all answers, once the last one is there."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        return self.answers

    def _send(self, number: int) -> None:
        while not self._stopped.is_set():
            number += len(self._threads)
            sent = time.monotonic()
            status, version = post(self._address, self._files[number % len(self._files)])
            self.answers.append(Answer(sent, time.monotonic(), status, version))


def post(address: str, data: bytes) -> tuple[int, str | None]:
    """Upload a file; return the status and the version that answered."""
    frame = b'--f\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + data + b"\r\n--f--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=f"}
    request = urllib.request.Request(f"{address}/api/v1/predictions?force=1", frame, headers)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, json.load(answer)["model_version"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None


def change(registry: Registry, load: Load, number: int, pause_s: float) -> tuple[str, float, float]:
    """Change the served version by the command; return which, and the seconds to the first answer and of it."""
    time.sleep(pause_s)
    goes_back = number % 2 == 1
    if not goes_back and number:
        models(["shadow", registry.names[1]])
        models(["shadow", "--stop"])
    begun = time.monotonic()
    arguments = ["rollback"] if goes_back else ["promote", registry.names[1], "--without-gate", "a benchmark"]
    subprocess.run([sys.executable, "-m", "fracture_det.cli", "models", *arguments], check=True, cwd=ROOT)
    commanded = time.monotonic() - begun
    wanted = registry.served_name()
    while True:
        found = [answer for answer in list(load.answers) if answer.sent > begun and answer.version == wanted]
        if found:
            return arguments[0], found[0].answered - begun, commanded
        time.sleep(0.05)


def report(seconds: list[tuple[str, float, float]], answers: list[Answer]) -> None:
    """Print what was measured."""
    for what, took, commanded in seconds:
        print(f"{what}: {took:.1f} s to the first answer by the new version, {commanded:.1f} s of them the command")
    times = sorted(answer.answered - answer.sent for answer in answers)
    statuses = {status: sum(answer.status == status for answer in answers) for status in {a.status for a in answers}}
    print(f"{len(answers)} uploads, by status: {statuses}; by version:", end=" ")
    print({name: sum(a.version == name for a in answers) for name in {a.version for a in answers}})
    print(f"an upload took {median(times):.2f} s (median), {times[-1]:.2f} s (longest)")


if __name__ == "__main__":
    sys.exit(main())
