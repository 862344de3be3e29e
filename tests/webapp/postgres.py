"""A real PostgreSQL for the tests: Debian's server in a folder of its own, on a socket, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)


def server_programs() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs, or None where there is none."""
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else next(iter(FOLDERS), None)


@contextmanager
def temporary() -> Iterator[tuple[str, Path]]:
    """Run a server in a folder of its own, give its URL and the folder, and remove it; skip where there is none."""
    programs = server_programs()
    if programs is None:
        pytest.skip("no PostgreSQL here; make test-deps installs it")
    # Below /tmp itself: the server's user cannot enter pytest's folders, and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="fracture-pg-"))
    folder.chmod(0o755)
    with running(programs, folder / "run") as url:
        yield url, folder / "run"
    shutil.rmtree(folder)


@contextmanager
def running(programs: Path, folder: Path) -> Iterator[str]:
    """Run a server in `folder`, give its URL, and stop it at the end."""
    folder.mkdir()
    as_whom = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to be root
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_whom = {"user": user.pw_uid, "group": user.pw_gid}

    def run(*command: str) -> None:
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, **as_whom)

    data = str(folder / "data")
    run(str(programs / "initdb"), "-D", data, "-U", "fracture", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    run(str(programs / "pg_ctl"), "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://fracture@/postgres?host={folder}"
    finally:
        run(str(programs / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
