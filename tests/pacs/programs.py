"""The programs beside the node: Orthanc, dcmtk's storescu and storescp, an MLLP server, the node itself."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from tests.paths import ROOT

WAIT_S = 300


def program(name):
    """Return the path of a program; skip the test where there is none."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"no {name} here; make test-deps installs it")
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(true, what, wait_s=WAIT_S):
    """Return what `true()` returns as soon as that is true."""
    deadline = time.monotonic() + wait_s
    while True:
        with contextlib.suppress(OSError, urllib.request.URLError):
            if outcome := true():
                return outcome
        assert time.monotonic() < deadline, f"waited {wait_s} s for {what}"
        time.sleep(0.1)


def listens(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


PLUGINS = Path("/usr/share/orthanc/plugins")
ORTHANC = {
    "Name": "test",
    "DicomAet": "ORTHANC",
    "AuthenticationEnabled": False,
    "RemoteAccessAllowed": False,
    "DicomCheckCalledAet": False,
    "OverwriteInstances": False,
    "DicomModalities": {"node": ["FRACTURE_DET", "127.0.0.1", 11112]},
    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
}


class Orthanc:
    """A running Orthanc that takes objects from the node and can send to it.

    configuration: the text of a file in place of the settings of ORTHANC. password: of its user "orthanc".
    plugins: which of PLUGINS it loads, where they are installed.
    """

    def __init__(self, folder, *, configuration=None, password=None, plugins=("libOrthancDicomWeb.so",)):
        self.folder, self.port, self.http_port = folder, free_port(), free_port()
        self._user = {}
        if password is not None:
            self._user = {"Authorization": "Basic " + base64.b64encode(f"orthanc:{password}".encode()).decode()}
        (folder / "configuration").mkdir(parents=True, exist_ok=True)
        here = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomPort": self.port,
            "HttpPort": self.http_port,
            "Plugins": [str(PLUGINS / name) for name in plugins if (PLUGINS / name).exists()],
            **({} if password is None else {"RegisteredUsers": {"orthanc": password}}),
        }
        # Orthanc merges the files of a folder.
        (folder / "configuration" / "orthanc.json").write_text(configuration or json.dumps(ORTHANC))
        (folder / "configuration" / "here.json").write_text(json.dumps(here))
        self._log = (folder / "orthanc.log").open("w")
        self._process = None
        self.start()

    def start(self):
        command = [program("Orthanc"), str(self.folder / "configuration")]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, cwd=self.folder)
        wait_for(self._is_ready, "Orthanc")

    def _is_ready(self):
        assert self._process.poll() is None, (self.folder / "orthanc.log").read_text()
        return listens(self.port) and self.get("/system")

    def get(self, path):
        return json.loads(self._ask(path))

    def file(self, instance):
        return self._ask(f"/instances/{instance}/file")

    def post(self, path, content):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return json.loads(self._ask(path, body))

    def put(self, path, content):
        self._ask(path, json.dumps(content).encode(), "PUT")

    def _ask(self, path, body=None, method=None):
        place = f"http://127.0.0.1:{self.http_port}{path}"
        request = urllib.request.Request(place, body, self._user, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def answers(self):
        """Return {study UID: [(modality, Orthanc's ID of an instance)]} of the node's objects."""
        found = {}
        for series in self.get("/series?expand"):
            tags = series["MainDicomTags"]
            if tags.get("Manufacturer") != "fracture_det":
                continue
            study = self.get(f"/studies/{series['ParentStudy']}")["MainDicomTags"]["StudyInstanceUID"]
            found.setdefault(study, []).extend((tags["Modality"], instance) for instance in series["Instances"])
        return {study: sorted(objects) for study, objects in found.items()}

    def stop(self):
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def close(self):
        self.stop()
        self._log.close()


def over_tls(server, context):
    """Have a socket server speak TLS with a client that shows what `context` wants; a refused one is no error here."""
    accept = server.get_request

    def get_request():
        connection, address = accept()
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    server.get_request, server.handle_error = get_request, lambda *_: None


class _LocalServer:
    """Runs `_server` in a thread, over TLS where there is a context."""

    def begin(self, context):
        if context is not None:
            over_tls(self._server, context)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class HttpServer(_LocalServer):
    """Keeps what is posted, and answers with 200; `context`: of TLS."""

    def __init__(self, context=None, port=0):
        self.bodies = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                outer.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.begin(context)


class MllpServer(_LocalServer):
    """Acknowledges messages, and keeps them; `code`: with what. `context`: of TLS."""

    def __init__(self, port=0, context=None):
        self.messages, self.code = [], "AA"
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                waiting = b""
                while chunk := self.request.recv(65536):
                    waiting += chunk
                    while b"\x1c\r" in waiting:
                        frame, _, waiting = waiting.partition(b"\x1c\r")
                        message = frame.lstrip(b"\x0b").decode()
                        control = message.split("\r")[0].split("|")[9]
                        outer.messages.append(message)
                        head = f"MSH|^~\\&|RIS|H|FRACTURE_DET||2026||ACK^R01^ACK|A{control}|P|2.5.1"
                        answer = f"{head}\rMSA|{outer.code}|{control}\r"
                        self.request.sendall(b"\x0b" + answer.encode() + b"\x1c\r")

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

        self._server = Server(("127.0.0.1", port), Handler)
        self.begin(context)


class RunningNode:
    """The node as a process of its own, which can be killed."""

    def __init__(self, folder, config, *, module=None, **environ):
        self.folder, self.port, self.http_port = folder, free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        head = f'ae_title = "FRACTURE_DET"\nport = {self.port}\nhttp_port = {self.http_port}\n'
        (folder / "pacs.toml").write_text(head + config)
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FRACTURE_")},
            "FRACTURE_DATA_DIR": str(folder / "data"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "PYTHONWARNINGS": "default",
            **environ,
        }
        self.log = folder / "node.log"
        self._process = None
        self._main = ["fracture_det.cli", "pacs"] if module is None else [module]

    def start(self):
        command = [sys.executable, "-m", *self._main, "--config", str(self.folder / "pacs.toml")]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(command, env=self.environ, stdout=log, stderr=log, cwd=self.folder)
        wait_for(self._is_ready, "the node")
        return self

    def _is_ready(self):
        assert self._process.poll() is None, self.log.read_text()
        return listens(self.http_port) and self.get("/readyz") == "ready\n"

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
            return answer.read().decode()

    @property
    def pid(self):
        return self._process.pid

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self):
        if self._process.poll() is None:
            self._process.terminate()
            assert self._process.wait(WAIT_S) == 0, self.log.read_text()

    def command(self, *arguments, check=True):
        """Run an action of the command on the node's store."""
        command = [sys.executable, "-m", "fracture_det.cli", "pacs", *arguments]
        done = subprocess.run(command, env=self.environ, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done


def storescu(port, files, *, calling="ORTHANC", called="FRACTURE_DET", extra=(), check=True):
    """Send files by dcmtk in one association."""
    command = [program("storescu"), "-R", *extra, "-aet", calling, "-aec", called, "127.0.0.1", str(port)]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done
