"""Bad and odd uploads, made by mutation of small JPEG and PNG files, and a command that sends thousands to a server.

    .venv/bin/python -m tests.webapp.bad_files --count 10000
    .venv/bin/python -m tests.webapp.bad_files --address http://127.0.0.1:8000 --pid 4711 --count 10000

Without --address it starts a server of its own with the bright-rectangles detector. It prints a table of kinds and
statuses, and ends with 1 when an answer has a status that its kind does not allow (a 5xx is never allowed), when a
connection is lost, when /healthz is silent afterwards or when the server's worker is another process than before.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil

from tests.webapp.bad_kinds import CREATED, KINDS
from tests.webapp.bright import start_bright

# What the cases are made for; a server with other limits may be asked as well.
LIMITS = {
    "FRACTURE_MAX_UPLOAD_MB": "1",
    "FRACTURE_MAX_MEGAPIXELS": "1",
    "FRACTURE_UPLOADS_PER_MINUTE": "100000",
}
CONNECTIONS = 4
# gunicorn ends a connection that is silent for two seconds, which is no fault; so long may making the next file take.
KEPT_ALIVE_S = 1.0
HUGE = 14_000


@dataclass(frozen=True)
class BadFile:
    """One upload and the statuses that may answer it."""

    kind: str
    data: bytes
    allowed: frozenset[int]


def bad_file(number: int, *, seed: int = 0) -> BadFile:
    """Return case `number`: one of each kind in turn, the same for the same seed."""
    turn, index = divmod(number, len(KINDS))
    kind, (make, allowed) = list(KINDS.items())[index]
    return BadFile(kind, make(np.random.default_rng((seed, turn, index))), allowed)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="of a running server (default: start one with the toy detector)")
    parser.add_argument("--pid", type=int, help="of that server, to see whether its worker changes")
    parser.add_argument("--count", type=int, default=1_000, help="how many files (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Send the files and print the table; return 1 when something is wrong."""
    args = build_parser().parse_args(argv)
    if args.address:
        return report(args.address, args.pid, args.count, args.seed)
    with tempfile.TemporaryDirectory() as folder, start_bright(Path(folder), **LIMITS) as server:
        return report(server.address, server.process.pid, args.count, args.seed)


def report(address: str, pid: int | None, count: int, seed: int) -> int:
    """Send `count` files to `address`, print what came of it, and return the exit code."""
    before = workers_of(pid)
    print(refuse_huge(address, pid))
    begun = time.monotonic()
    table: Counter[tuple[str, int]] = Counter()
    wrong: list[str] = []
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        shares = [range(first, count, CONNECTIONS) for first in range(CONNECTIONS)]
        for case, status, said in chain.from_iterable(pool.map(lambda share: send_all(address, share, seed), shares)):
            table[case.kind, status] += 1
            if status not in case.allowed:
                wrong.append(f"{case.kind}: {status}, allowed {sorted(case.allowed)}: {said}")
    print_table(table)
    after = workers_of(pid)
    if before.keys() != after.keys():
        wrong.append(f"the worker changed: {sorted(before)} before, {sorted(after)} after")
    if (status := ask_health(address)) != 200:
        wrong.append(f"/healthz answers {status}")
    print(f"{count:,} files in {time.monotonic() - begun:.0f} s; worker memory {before} before, {after} after (MB)")
    print("\n".join(wrong[:40]) or "every answer is allowed, no connection was lost, the worker is the same")
    return 1 if wrong else 0


def refuse_huge(address: str, pid: int | None) -> str:
    """Send a whole PNG of 14,000 x 14,000 pixels; say how it was answered, how fast, and how far memory rose."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    data = huge_png(HUGE)  # made before the connection, which a silence of two seconds would end
    send(connection, huge_png(1))  # what is loaded with the first upload is not its fault
    before, begun = peak_kb(pid), time.perf_counter()
    status, _ = send(connection, data)
    took_ms = 1000 * (time.perf_counter() - begun)
    connection.close()
    return f"{HUGE:,} x {HUGE:,} px: {status} in {took_ms:.0f} ms, peak memory +{(peak_kb(pid) - before) / 1000:.0f} MB"


def huge_png(side: int) -> bytes:
    """Return a black grey PNG of `side` x `side` pixels; small, since black packs well."""
    packer = zlib.compressobj()
    packed = b"".join([*(packer.compress(bytes(side + 1)) for _ in range(side)), packer.flush()])
    parts = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", packed), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def peak_kb(pid: int | None) -> int:
    """Return the most memory (RSS, kB) that the worker of the server `pid` ever had; 0 for a server not named."""
    for worker in workers_of(pid):
        match = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{worker}/status").read_text(encoding="ascii"))
        return int(match[1]) if match else 0
    return 0


def send_all(address: str, numbers: range, seed: int) -> list[tuple[BadFile, int, str]]:
    """Send the cases with these numbers over one connection; a connection that is lost is status 0."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    answers = []
    answered_at = time.monotonic()
    for number in numbers:
        case = bad_file(number, seed=seed)
        if time.monotonic() - answered_at > KEPT_ALIVE_S:
            connection.close()  # opened anew by the next request
        try:
            status, said = send(connection, case.data)
        except (OSError, http.client.HTTPException) as error:
            status, said = 0, f"lost: {error!r}"
            connection.close()
        answered_at = time.monotonic()
        answers.append((replace(case, data=b""), status, said))
        if number % 1_000 == 0:
            print(f"{number:,} sent", file=sys.stderr, flush=True)
    connection.close()
    return answers


def send(connection: http.client.HTTPConnection, data: bytes) -> tuple[int, str]:
    """Upload `data`; return the status and the sentence or the level of the finding."""
    frame = (
        b'--frame\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n\r\n%s\r\n--frame--\r\n' % data
    )
    connection.request("POST", "/api/v1/predictions", frame, {"Content-Type": "multipart/form-data; boundary=frame"})
    answer = connection.getresponse()
    told = json.loads(answer.read())
    return answer.status, told["finding"]["level"] if answer.status == CREATED else told["error"]


def ask_health(address: str) -> int:
    """Return the status of /healthz, or 0."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def workers_of(pid: int | None) -> dict[int, int]:
    """Return the memory (RSS, MB) of each worker of the server `pid`."""
    children = [] if pid is None else psutil.Process(pid).children()
    return {child.pid: child.memory_info().rss // 1_000_000 for child in children}


def print_table(table: Counter[tuple[str, int]]) -> None:
    """Print a Markdown table of kinds and statuses."""
    statuses = sorted({status for _, status in table})
    print(f"| kind | {' | '.join(map(str, statuses))} |")
    print(f"| --- | {' | '.join('---' for _ in statuses)} |")
    for kind in sorted({kind for kind, _ in table}):
        print(f"| {kind} | {' | '.join(str(table[kind, status] or '') for status in statuses)} |")
    print(f"| all | {' | '.join(str(sum(n for (_, s), n in table.items() if s == status)) for status in statuses)} |")


if __name__ == "__main__":
    sys.exit(main())
