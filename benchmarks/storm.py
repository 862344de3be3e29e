"""Many uploads at once against a real server: are all responses right, how fast are they, and how fast is "busy"?

    .venv/bin/python benchmarks/storm.py --images datasets/fracatlas/images/Fractured --out output/storm

Starts `python -m webapp` on a free port of the loopback with a data folder that is thrown away, and asks:

  quiet     every file alone; the responses that all others are compared with
  storm     --uploads files at once (the paper's 50), --rounds times; each time the speed is compared with that of the
            bare detector, which in this process gets the same radiographs decoded, in full batches, before and after
  flood     ten times as many at once: accepted uploads must get the right response, the others 503 with Retry-After;
            the time from the end of the body to the response counts
  pressed   as many as fill the queue at once, then 20 per second for five seconds, and only these count: how fast is
            "busy" sent while only the detector competes for the processors?
  after     ten seconds later one file alone, as in quiet

A response is right when its boxes, scores and finding are those of the quiet one. `lost` are uploads without a
response or with another status. Times are those of the client, on the same machine: its own work is in them.

Not with locust: it starts users one after the other and lets each repeat its task, and its clock starts with the
request. Here every upload is sent once, all at the same moment, and the clock starts with the last byte of the body.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from fracture_det.inference.base import Detector
from fracture_det.inference.registry import DETECTORS, open_detector
from fracture_det.structures.image_files import find_images
from fracture_det.structures.radiograph import read_radiograph

BATCH, QUEUE_SIZE = 4, 64
FLOOD = 10
REST_S = 10.0
PRESS, PRESS_PER_S = 100, 20
PARTS = ("storm", "flood", "pressed", "after")
# What a response must share with the quiet one.
SAME = ("detections", "finding", "image")


@dataclass(frozen=True)
class Response:
    """One response; times in ms: to connect, and from the end of the body to the end of the response."""

    status: int
    body: dict[str, Any]
    retry_after: str | None
    connect_ms: float
    response_ms: float


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="shipped", help="URI; bright:SECONDS is the toy (default: shipped)")
    parser.add_argument("--images", required=True, help="file, folder or glob of radiographs")
    parser.add_argument(
        "--uploads", type=int, default=50, help="at once; the flood has ten times as many (default: 50)"
    )
    parser.add_argument("--files", type=int, default=50, help="how many different ones, over and over (default: 50)")
    parser.add_argument("--rounds", type=int, default=3, help="of the storm; the middle ratio counts (default: 3)")
    parser.add_argument("--out", type=Path, required=True, help="folder for storm.json and storm.md")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run; return 1 when a response was wrong or lost."""
    args = build_parser().parse_args(argv)
    DETECTORS["bright"] = "tests.webapp.bright:BrightRectangles.open"
    paths = [path for _, path in find_images(args.images).files[: args.files]]
    result = measure(args.detector, paths, args.uploads, args.rounds)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "storm.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (args.out / "storm.md").write_text(table_of(result), encoding="utf-8")
    print(table_of(result))
    return 1 if any(result[part]["wrong"] or result[part]["lost"] for part in PARTS) else 0


def measure(uri: str, paths: Sequence[Path], uploads: int, rounds: int) -> dict[str, Any]:
    """Return the figures of all parts."""
    detector = open_detector(uri)
    files = [path.read_bytes() for path in paths]
    at_once = list(islice(cycle(files), uploads))
    storm: list[Response] = []
    speeds: list[float] = []
    with running(uri) as (address, worker):
        alone = [asyncio.run(send_all(address, [file]))[0] for file in [files[0], *files]][1:]
        quiet_ms = float(np.median([response.response_ms for response in alone]))
        rss_mb = {"start": held_mb(worker)}
        bare = [bare_speed(detector, paths)]
        with peak_of(worker) as peak:
            for _ in range(rounds):
                begun = time.perf_counter()
                responses = asyncio.run(send_all(address, at_once))
                seconds = time.perf_counter() - begun
                speeds.append([response.status for response in responses].count(201) / seconds)
                storm += responses
                bare.append(bare_speed(detector, paths))
            rss_mb |= {"storm": held_mb(worker), "storm peak": peak[0]}
            flood = asyncio.run(send_all(address, list(islice(cycle(files), FLOOD * uploads))))
            rss_mb |= {"flood": held_mb(worker), "flood peak": peak[0]}
            pressing = list(islice(cycle(files), PRESS))
            fill = QUEUE_SIZE + uploads
            both = asyncio.run(send_all(address, list(islice(cycle(files), fill)) + pressing, first_late=fill))
        time.sleep(REST_S)
        after = [asyncio.run(send_all(address, [file]))[0] for file in files[:5]]
        rss_mb["after"] = held_mb(worker)
    ratios = [speed / np.mean(around) for speed, around in zip(speeds, pairwise(bare), strict=True)]
    return {
        "detector": detector.info.name,
        "files": len(files),
        "quiet": {"answers": len(alone), "p50_ms": quiet_ms},
        "storm": judged(storm, list(islice(cycle(alone), uploads)))
        | {"per_s": speeds, "bare_per_s": bare, "ratios": ratios},
        "flood": judged(flood, alone),
        "pressed": judged(both[fill:], alone),
        "after": judged(after, alone) | {"against_quiet": float(np.median([a.response_ms for a in after])) / quiet_ms},
        "worker_rss_mb": rss_mb,
    }


def bare_speed(detector: Detector, paths: Sequence[Path]) -> float:
    """Return how many decoded radiographs per second the detector does, in full batches."""
    pixels = [read_radiograph(path).pixels for path in paths]
    detector.predict(pixels[:BATCH])
    begun = time.perf_counter()
    for first in range(0, len(pixels), BATCH):
        detector.predict(pixels[first : first + BATCH])
    return len(pixels) / (time.perf_counter() - begun)


@contextmanager
def running(uri: str) -> Iterator[tuple[str, psutil.Process]]:
    """Start the server; yield its address and its worker process."""
    module = "tests.webapp.bright" if uri.startswith("bright:") else "webapp"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "server.log")
        own = {"FRACTURE_DATA_DIR": str(Path(folder, "instance")), "FRACTURE_UPLOADS_PER_MINUTE": "100000"}
        environ = os.environ | own | {"FRACTURE_MAX_BATCH": str(BATCH), "FRACTURE_QUEUE_SIZE": str(QUEUE_SIZE)}
        command = [sys.executable, "-m", module, "--port", "0", "--detector", uri]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=subprocess.STDOUT)
        try:
            while not (match := re.search(r"^fracture_det: (http://\S+) \(detector", log.read_text(), re.MULTILINE)):
                if process.poll() is not None:
                    raise SystemExit(f"the server ended with code {process.returncode}: {log.read_text()}")
                time.sleep(0.1)
            yield match[1], psutil.Process(process.pid).children()[0]
        finally:
            process.terminate()
            process.wait(60)


async def send_all(address: str, files: Sequence[bytes], *, first_late: int = 10**9) -> list[Response]:
    """Send all files at once, each over a connection of its own; from number `first_late` on, one after the other."""
    host, port = address.removeprefix("http://").split(":")
    waits_s = [max(0.0, (1 + number - first_late) / PRESS_PER_S) for number in range(len(files))]
    return list(await asyncio.gather(*(send(host, int(port), *pair) for pair in zip(files, waits_s, strict=True))))


async def send(host: str, port: int, data: bytes, wait_s: float) -> Response:
    """Send one file after `wait_s`; a missing response has status 0."""
    await asyncio.sleep(wait_s)
    head = b'--frame\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    body = head + data + b"\r\n--frame--\r\n"
    begun = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection(host, port)
        writer.transport.set_write_buffer_limits(0)  # so that drain waits until the last byte is out
        connected = time.perf_counter()
        writer.write(
            b"POST /api/v1/predictions HTTP/1.1\r\nHost: %s:%d\r\nConnection: close\r\n"
            b"Content-Type: multipart/form-data; boundary=frame\r\nContent-Length: %d\r\n\r\n"
            % (host.encode(), port, len(body))
        )
        writer.write(body)
        await writer.drain()
        sent = time.perf_counter()
        head, _, text = (await asyncio.wait_for(reader.read(), 600)).partition(b"\r\n\r\n")
        ended = time.perf_counter()
        writer.close()
        retry = re.search(rb"(?im)^retry-after: *(\d+)", head)
        response_ms, connect_ms = 1000 * (ended - sent), 1000 * (connected - begun)
        return Response(
            int(head.split()[1]), json.loads(text), retry[1].decode() if retry else None, connect_ms, response_ms
        )
    except (OSError, ValueError, IndexError, asyncio.TimeoutError) as error:
        return Response(0, {"error": repr(error)}, None, 0.0, 1000 * (time.perf_counter() - begun))


def judged(responses: Sequence[Response], alone: Sequence[Response]) -> dict[str, Any]:
    """Return counts of right, busy, wrong and lost responses, and the times of the first two."""
    right, busy, wrong, lost = [], [], 0, Counter[str]()
    for response, quiet in zip(responses, cycle(alone), strict=False):
        if response.status == 201 == quiet.status:
            same = all(response.body[key] == quiet.body[key] for key in SAME)
            right += [response] if same else []
            wrong += not same
        elif response.status == 503 and response.retry_after:
            busy.append(response)
        elif response.status != quiet.status:
            lost[f"{response.status} {response.body.get('error', '')}"] += 1
    return {
        "uploads": len(responses),
        "right": len(right),
        "busy": len(busy),
        "wrong": wrong,
        "lost": dict(lost),
        "connect_max_ms": max(response.connect_ms for response in responses),
        "right_ms": quantiles([response.response_ms for response in right]),
        "busy_ms": quantiles([response.response_ms for response in busy]),
    }


def quantiles(times_ms: Sequence[float]) -> dict[str, float]:
    """Return the median, the 95th percentile and the largest; empty without times."""
    if not times_ms:
        return {}
    return dict(zip(("p50", "p95", "max"), np.percentile(times_ms, (50, 95, 100)).tolist(), strict=True))


def held_mb(worker: psutil.Process) -> float:
    """Return the memory (RSS) of the worker, 1 MB = 10^6 bytes."""
    return worker.memory_info().rss / 1e6


@contextmanager
def peak_of(worker: psutil.Process) -> Iterator[list[float]]:
    """Yield a list whose only element is the largest memory of the worker so far, sampled twenty times a second."""
    peak, ended = [held_mb(worker)], threading.Event()

    def sample() -> None:
        while not ended.wait(0.05):
            peak[0] = max(peak[0], held_mb(worker))

    watcher = threading.Thread(target=sample)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def listed(values: Sequence[float]) -> str:
    """Return the values with two digits."""
    return ", ".join(f"{value:.2f}" for value in values)


def table_of(result: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = [
        f"{result['detector']}, {result['files']} files; quiet: {result['quiet']['p50_ms']:.0f} ms",
        "",
        "| part | uploads | right | busy | wrong | lost | connect max, ms | right p50 / p95 / max, ms | busy, ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for part in PARTS:
        row = result[part]
        times = [" / ".join(f"{value:.0f}" for value in row[key].values()) for key in ("right_ms", "busy_ms")]
        counts = [row[key] for key in ("uploads", "right", "busy", "wrong")] + [sum(row["lost"].values())]
        lines.append(f"| {part} | {' | '.join(map(str, counts))} | {row['connect_max_ms']:.0f} | {' | '.join(times)} |")
    storm, rss = result["storm"], result["worker_rss_mb"]
    per_s, bare, ratios = (listed(storm[key]) for key in ("per_s", "bare_per_s", "ratios"))
    lines += [
        "",
        f"Storms per second: {per_s}; bare detector before, between and after: {bare}.",
        f"Ratios: {ratios}; the middle one {np.median(storm['ratios']):.2f}.",
        f"After the rest {result['after']['against_quiet']:.2f} of the quiet latency.",
        "Memory of the worker (RSS, MB): " + ", ".join(f"{name} {value:.0f}" for name, value in rss.items()) + ".",
        *(f"Lost: {count} x {message}" for part in PARTS for message, count in result[part]["lost"].items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
