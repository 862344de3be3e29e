"""The page below a path of its host, as a reverse proxy serves it: in the app, and behind a real nginx."""

import http.client
import io
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.webapp.bright import ROOT, dark_plate
from tests.webapp.browser import open_page
from tests.webapp.conftest import LIKELY, changed, encoded
from tests.webapp.test_browser import job
from tests.webapp.test_login_browser import PASSWORD, log_in
from webapp import create_app
from webapp.store import Store
from webapp.store.accounts import READER

PREFIX = {"X-Forwarded-Prefix": "/fracture"}
ADDRESSES = re.compile(r'(?:href|src|action|data-api|data-result|data-delete)="([^"#]+)')


@pytest.fixture
def make_client(settings, service):
    """Make a client of an app with some settings."""
    made = []

    def make(**changes):
        made.append(create_app(changed(settings, **changes), predictor=service))
        return made[-1].test_client(use_cookies=False)

    yield make
    for app in made:
        app.extensions["fracture"].store.close()


def upload(client, headers):
    form = {"file": (io.BytesIO(encoded(dark_plate(LIKELY))), "a.png")}
    return client.post("/api/v1/predictions", data=form, headers=headers, content_type="multipart/form-data")


class TestApp:
    def test_every_address_begins_with_the_prefix(self, make_client):
        client = make_client(trusted_proxies=1)
        answer = upload(client, PREFIX)
        assert answer.status_code == 201
        links = answer.json["links"]
        assert answer.headers["Location"] == links["self"]
        assert all(link.startswith("/fracture/") for link in links.values() if link is not None)  # no further samples
        pages = ["/", "/history", "/model", "/api", "/nowhere", *(links[name][9:] for name in ("page", "report"))]
        for page in pages:
            addresses = ADDRESSES.findall(client.get(page, headers=PREFIX).text)
            assert len(addresses) > 5
            assert all(address.startswith("/fracture/") for address in addresses if "://" not in address), page

    def test_the_description_of_the_api_names_it(self, make_client):
        client = make_client(trusted_proxies=1, hostnames=("x.example", "localhost"))
        assert client.get("/api/openapi.json", headers=PREFIX).json["servers"] == [{"url": "/fracture"}]
        assert client.get("/api/openapi.json").json["servers"] == [{"url": "/"}]
        shown = client.get("/api", headers=PREFIX | {"X-Forwarded-Host": "x.example", "X-Forwarded-Proto": "https"})
        assert "https://x.example/fracture/api/v1/predictions" in shown.text
        assert "POST /fracture/api/v1/predictions" in shown.text

    def test_the_login_leads_back_and_its_cookie_stays_below(self, make_client, settings):
        client = make_client(trusted_proxies=1, login=True, secret_key="k" * 32)
        store = Store(settings.data_dir)
        store.accounts.add_user("anna", READER, PASSWORD, by="test")
        store.close()
        first = client.get("/history?page=1", headers=PREFIX)
        assert first.headers["Location"] == "/fracture/login?next=/fracture/history?page%3D1"
        options = {"headers": PREFIX, "base_url": "https://localhost"}
        form = client.get("/login?next=/fracture/history%3Fpage%3D1", **options)
        assert "Path=/fracture;" in form.headers["Set-Cookie"] + ";"
        # By hand: a jar would send the cookie below /fracture alone, which the proxy takes off before the app.
        cookie = form.headers["Set-Cookie"].partition(";")[0]
        token = re.search(r'name="csrf-token" content="([^"]+)"', form.text)[1]
        after = re.search(r'name="after" value="([^"]+)"', form.text)[1]
        data = {"name": "anna", "password": PASSWORD, "after": after, "csrf_token": token}
        done = client.post("/login", data=data, headers=PREFIX | {"Cookie": cookie}, base_url="https://localhost")
        assert (done.status_code, done.headers["Location"]) == (302, "/fracture/history?page=1")
        assert "Path=/fracture;" in done.headers["Set-Cookie"] + ";"

    @pytest.mark.parametrize("after", ["/other/page", "/fracture.example/", "//evil.example", "/fracture"])
    def test_the_login_leads_to_no_other_path_of_the_host(self, make_client, after):
        client = make_client(trusted_proxies=1, login=True, secret_key="k" * 32)
        assert 'name="after" value="/fracture/"' in client.get(f"/login?next={after}", headers=PREFIX).text

    def test_a_client_that_is_no_proxy_sets_no_prefix(self, make_client):
        assert "/fracture" not in make_client().get("/", headers=PREFIX).text

    @pytest.mark.parametrize(
        "prefix", ["//evil.example", "https://evil.example", "/a b", "/a//b", '/"', "fracture", "/"]
    )
    def test_what_is_no_prefix_is_ignored(self, make_client, prefix):
        client = make_client(trusted_proxies=1)
        page = client.get("/", headers={"X-Forwarded-Prefix": prefix})
        assert page.status_code == 200
        assert 'href="/history"' in page.text

    @pytest.mark.parametrize(("prefix", "shown"), [("/fracture/", "/fracture"), ("/tools/x-ray_1", "/tools/x-ray_1")])
    def test_a_slash_at_its_end_and_several_parts_are_fine(self, make_client, prefix, shown):
        page = make_client(trusted_proxies=1).get("/", headers={"X-Forwarded-Prefix": prefix})
        assert f'href="{shown}/history"' in page.text


def test_no_script_and_no_template_has_an_absolute_address():
    files = [*(ROOT / "webapp" / "static").glob("*.js"), *(ROOT / "webapp" / "templates").rglob("*.html")]
    absolute = re.compile(r"""["'`](/[\w${][^"'`\s]*)["'`]""")
    assert {file.name: absolute.findall(file.read_text()) for file in files if absolute.search(file.read_text())} == {}


def documented_block(location: str) -> str:
    """Return the block of docs/deployment.md that begins with `location`."""
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    return next(block for block in re.findall(r"```nginx\n(.*?)```", text, re.DOTALL) if block.startswith(location))


@contextmanager
def nginx(folder: Path, block: str):
    """Run nginx with `block` on a free port, and give its address."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("no nginx here; make test-deps installs it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # nobody else may enter pytest's folders
    configuration = (
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log {folder}/access.log; {temporary}\n"
        f"server {{ listen 127.0.0.1:{port}; absolute_redirect off;\n{block}\n}} }}\n"
    )
    (folder / "nginx.conf").write_text(configuration)
    process = subprocess.Popen([program, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")])
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def behind(start_server, tmp_path_factory):
    """The address of the page at /fracture/ behind nginx, with the login on and a user."""
    folder = tmp_path_factory.mktemp("instance")
    store = Store(folder)
    store.accounts.add_user("anna", READER, PASSWORD, by="test")
    store.close()
    server = start_server(folder, FRACTURE_LOGIN="on", FRACTURE_SECRET_KEY="k" * 32, FRACTURE_TRUSTED_PROXIES="1")
    place = server.address.removeprefix("http://")
    block = documented_block("location /fracture/").replace("127.0.0.1:8000", place)
    assert place in block
    with nginx(tmp_path_factory.mktemp("nginx"), block) as address:
        yield f"{address}/fracture"


class Visitor:
    """A client without a browser: keeps its cookie as one would, and asks for nothing outside the prefix."""

    def __init__(self, address: str) -> None:
        self.host = urllib.parse.urlsplit(address).netloc
        self.cookie = ""

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        assert path.startswith("/fracture/"), path
        connection = http.client.HTTPConnection(self.host, timeout=30)
        if self.cookie:
            headers["Cookie"] = self.cookie
        connection.request(
            method, path, body or None, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        content, received = answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        if "set-cookie" in received:
            assert "Path=/fracture" in received["set-cookie"].split("; ")
            self.cookie = received["set-cookie"].partition(";")[0]
        return answer.status, received, content

    def token(self, path: str) -> str:
        page = self.ask("GET", path)[2].decode()
        return re.search(r'name="csrf-token" content="([^"]+)"', page)[1]


def test_a_whole_journey_behind_nginx(behind):
    visitor = Visitor(behind)
    status, headers, _ = visitor.ask("GET", "/fracture/history")
    assert (status, headers["location"]) == (302, "/fracture/login?next=/fracture/history")
    token = visitor.token(headers["location"])
    form = {"name": "anna", "password": PASSWORD, "after": "/fracture/history", "csrf_token": token}
    kind = "application/x-www-form-urlencoded"
    encoded_form = urllib.parse.urlencode(form).encode()
    status, headers, _ = visitor.ask("POST", "/fracture/login", encoded_form, Content_Type=kind, Origin=behind[:-9])
    assert (status, headers["location"]) == (302, "/fracture/history")
    token = visitor.token("/fracture/")

    body = b'--frame\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    body += encoded(dark_plate(LIKELY)) + b"\r\n--frame--\r\n"
    kind = "multipart/form-data; boundary=frame"
    change = {"X_CSRFToken": token, "Origin": behind[:-9]}
    status, headers, content = visitor.ask("POST", "/fracture/api/v1/predictions", body, Content_Type=kind, **change)
    assert status == 201
    links = json.loads(content)["links"]
    assert headers["location"] == links["self"]
    assert links.pop("samples") is links.pop("settlement") is None
    kinds = {name: visitor.ask("GET", link)[1]["content-type"] for name, link in links.items() if name != "feedback"}
    assert kinds["image"] == kinds["overlay"] == "image/png"
    assert kinds["report_pdf"] == "application/pdf"
    assert kinds["page"].startswith("text/html")
    for address in ADDRESSES.findall(visitor.ask("GET", links["page"])[2].decode()):
        assert visitor.ask("GET", address.partition("?")[0])[0] in (200, 405), address

    identifier = links["page"].rsplit("/", 1)[1]
    form = urllib.parse.urlencode({"csrf_token": token}).encode()
    kind = "application/x-www-form-urlencoded"
    status, headers, _ = visitor.ask("POST", f"/fracture/results/{identifier}/delete", form, Content_Type=kind)
    assert (status, headers["location"]) == (302, "/fracture/history")
    assert visitor.ask("GET", links["self"])[0] == 404


def test_what_the_client_says_of_the_prefix_does_not_count(behind, start_server, tmp_path):
    visitor = Visitor(behind)
    for header in ("X_Forwarded_Prefix", "SCRIPT_NAME"):
        assert visitor.ask("GET", "/fracture/history", **{header: "/evil"})[1]["location"].startswith("/fracture/login")
    port = urllib.parse.urlsplit(start_server(tmp_path / "instance").address).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for header in ("X-Forwarded-Prefix", "SCRIPT_NAME"):
        connection.request("GET", "/", headers={header: "/history"})
        answer = connection.getresponse()
        assert (answer.status, b'href="/history"' in answer.read()) == (200, True)
    connection.close()


def test_at_the_root_of_its_host_the_proxy_takes_the_clients_prefix_away(start_server, tmp_path):
    secret = {"FRACTURE_LOGIN": "on", "FRACTURE_SECRET_KEY": "k" * 32, "FRACTURE_TRUSTED_PROXIES": "1"}
    place = start_server(tmp_path / "instance", **secret).address.removeprefix("http://")
    block = documented_block("location / ").replace("127.0.0.1:8000", place)
    (tmp_path / "nginx").mkdir()
    with nginx(tmp_path / "nginx", block) as address:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc, timeout=30)
        connection.request("GET", "/history", headers={"X-Forwarded-Prefix": "/evil"})
        assert connection.getresponse().headers["Location"] == "/login?next=/history"
        connection.close()


@pytest.mark.browser
def test_in_a_browser_no_request_leaves_the_prefix(browser, behind, tmp_path):
    (tmp_path / "wrist.png").write_bytes(encoded(dark_plate(LIKELY)))
    with open_page(browser) as (page, witness):
        page.goto(f"{behind}/history")
        log_in(page, "anna", PASSWORD)
        page.wait_for_url(f"{behind}/history")
        page.get_by_role("link", name="Analyse", exact=True).click()
        page.set_input_files("#files", str(tmp_path / "wrist.png"))
        wrist = job(page, "wrist")
        wrist.locator("[data-ready]").wait_for()
        wrist.get_by_role("button", name="Box 1 is right").click()
        expect(wrist.locator("[data-part=saved]")).to_contain_text("Saved")
        with page.expect_popup() as opened:
            wrist.get_by_role("link", name="Report", exact=True).click()
        expect(opened.value.locator(".report")).to_contain_text("Research use only")
        assert opened.value.url.startswith(f"{behind}/results/")

        page.goto(f"{behind}/history")
        page.locator(".entry .finding a").click()
        page.locator("[data-ready]").wait_for()
        page.get_by_role("button", name=re.compile("^Delete")).first.click()
        page.get_by_role("dialog").get_by_role("button", name=re.compile("Delete")).click()
        page.wait_for_url(f"{behind}/")
        page.get_by_role("link", name="API", exact=True).click()
        description = page.get_by_role("link", name=re.compile("^OpenAPI")).get_attribute("href")
        assert description == "/fracture/api/openapi.json"
        page.get_by_role("button", name="Log out anna").click()
        page.wait_for_url(f"{behind}/login")
        assert witness.complaints == []
        assert witness.requests
        assert all(url.startswith((f"{behind}/", "data:", "blob:")) for url in witness.requests), witness.requests
