"""A client has one limit by whatever spelling its address comes, and a host one name."""

import http.client
import re
import socket
import urllib.parse

import pytest

from tests.webapp.conftest import changed, form_token
from webapp import create_app
from webapp.addresses import client_network, host_name

PEER = "198.51.100.1"

NETWORKS = [
    ("203.0.113.7", "203.0.113.7/32"),
    ("203.0.113.8", "203.0.113.8/32"),
    (" 203.0.113.7 ", "203.0.113.7/32"),
    ("203.0.113.7:49152", "203.0.113.7/32"),
    ("::ffff:203.0.113.7", "203.0.113.7/32"),
    ("::FFFF:cb00:7107", "203.0.113.7/32"),
    ("[::ffff:203.0.113.7]:80", "203.0.113.7/32"),
    ("::ffff:203.0.113.7%eth0", "203.0.113.7/32"),
    ("64:ff9b::203.0.113.7", "203.0.113.7/32"),
    ("64:ff9b::1:203.0.113.7", "64:ff9b::/64"),  # not in the /96
    ("2001:db8::1", "2001:db8::/64"),
    ("2001:DB8:0:0:ffff::2", "2001:db8::/64"),
    ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
    ("[2001:db8::1]", "2001:db8::/64"),
    ("[2001:db8::1]:443", "2001:db8::/64"),
    ("fe80::1%eth0", "fe80::/64"),
    ("[fe80::1%25eth0]:443", "fe80::/64"),
    ("::1", "::/64"),
]
NOT_ADDRESSES = [
    *("", "unknown", "_hidden", "localhost", "203.0.113", "203.0.113.256", "203.0.113.07", "203.0.113.7:", "1:2"),
    *("203.0.113.7:x", "203.0.113.7:65536", "203.0.113.7:80:80", "[203.0.113.7", "[::1]80", "::1::", "x" * 5000),
    *("203.0.113.7:" + "9" * 5000, "203.0.113.7/8", "\u0661.2.3.4", "203.0.113.7:\u0661"),
]


@pytest.mark.parametrize(("address", "network"), NETWORKS)
def test_a_client_is_counted_for_its_network(address, network):
    assert client_network(address, PEER) == network


@pytest.mark.parametrize("address", NOT_ADDRESSES)
def test_what_is_no_address_counts_for_the_other_end_of_the_connection(address):
    assert client_network(address, "::ffff:198.51.100.1") == f"{PEER}/32"
    assert client_network(address, "") == "unknown"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost:8000", "localhost"),
        ("X-Ray.Example", "x-ray.example"),
        ("127.0.0.1:8000", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[0:0::0001]:8000", "::1"),
        ("::1", "::1"),
        ("röntgen.example:80", "xn--rntgen-wxa.example"),
        (".example", ".example"),
        ("", ""),
    ],
)
def test_a_host_has_one_name(host, name):
    assert host_name(host) == name


@pytest.fixture
def settings(settings):
    return changed(settings, login=True, secret_key="k" * 32, logins_per_minute=1)


@pytest.fixture
def statuses(settings, service):
    """Log in wrongly from each (address of the connection, X-Forwarded-For), behind so many proxies."""

    def attempt(proxies, *clients):
        app = create_app(changed(settings, trusted_proxies=proxies), predictor=service)
        answers = []
        for address, forwarded in clients:
            # One browser each: the cookie of a form goes over TLS alone behind a proxy.
            client, base = app.test_client(), {"wsgi.url_scheme": "https"}
            page = client.get("/login", environ_base=base)
            token = re.search(r'name="csrf-token" content="([^"]+)"', page.text)[1]
            data = {"name": "anna", "password": "guess", "csrf_token": token}
            headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
            base = base | {"REMOTE_ADDR": address}
            answers.append(client.post("/login", data=data, headers=headers, environ_base=base).status_code)
        app.extensions["fracture"].store.close()
        return answers

    return attempt


def test_ipv4_clients_of_a_dual_stack_listener_have_a_limit_each(statuses):
    clients = [(address, None) for address in ("::ffff:203.0.113.7", "::ffff:203.0.113.8", "203.0.113.7", "::1")]
    assert statuses(0, *clients) == [401, 401, 429, 401]


def test_without_a_proxy_nobody_chooses_an_address(statuses):
    assert statuses(0, ("203.0.113.7", "1.1.1.1"), ("203.0.113.7", "2.2.2.2")) == [401, 429]


@pytest.mark.parametrize("peer", ["127.0.0.1", "::ffff:127.0.0.1", "::1"])
def test_behind_a_proxy_the_client_counts_and_not_its_port(statuses, peer):
    forwarded = ("203.0.113.7:1", "203.0.113.7:2", "203.0.113.8:1", "[2001:db8::1]:1", "[2001:db8::2]:2")
    assert statuses(1, *((peer, address) for address in forwarded)) == [401, 429, 401, 401, 429]


def test_only_what_the_trusted_proxies_added_counts(statuses):
    clients = [(PEER, "6.6.6.6, 203.0.113.7"), (PEER, "7.7.7.7, 203.0.113.7"), (PEER, "203.0.113.7, 203.0.113.8")]
    assert statuses(1, *clients) == [401, 429, 401]
    clients = [(PEER, "6.6.6.6, 203.0.113.7, 10.0.0.1"), (PEER, "203.0.113.7, 10.0.0.2"), (PEER, "10.0.0.2")]
    assert statuses(2, *clients) == [401, 429, 401]


def test_a_proxy_that_names_no_address_counts_itself(statuses):
    clients = [(PEER, "unknown"), (PEER, "_hidden"), (PEER, None), ("198.51.100.2", "unknown")]
    assert statuses(1, *clients) == [401, 429, 429, 401]


def test_a_session_is_no_second_limit_of_logins(settings, service):
    app = create_app(changed(settings, logins_per_minute=2), predictor=service)
    app.extensions["fracture"].store.accounts.add_user("anna", "reader", "correct horse battery", by="test")
    client = app.test_client()
    answers = []
    for password in ("correct horse battery", "guess", "guess"):
        data = {"name": "anna", "password": password, "csrf_token": form_token(client, "/login")}
        answers.append(client.post("/login", data=data).status_code)
    app.extensions["fracture"].store.close()
    assert answers == [302, 401, 429]


def test_on_a_dual_stack_listener_one_client_locks_out_nobody_else(start_server, tmp_path):
    try:
        with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True):
            pass
    except (OSError, ValueError):
        pytest.skip("no dual-stack listener here")
    server = start_server(
        tmp_path, FRACTURE_HOST="::", FRACTURE_LOGIN="on", FRACTURE_SECRET_KEY="k" * 32, FRACTURE_LOGINS_PER_MINUTE="3"
    )
    port = int(server.address.rpartition(":")[2])

    def wrong_login(to: str, source: str) -> int:
        connection = http.client.HTTPConnection(to, port, timeout=30, source_address=(source, 0))
        connection.request("GET", "/login")
        page = connection.getresponse()
        token = re.search(r'name="csrf-token" content="([^"]+)"', page.read().decode())[1]
        body = urllib.parse.urlencode({"name": "anna", "password": "guess", "csrf_token": token})
        kind = "application/x-www-form-urlencoded"
        cookie = page.headers["Set-Cookie"].partition(";")[0]
        connection.request("POST", "/login", body, {"Content-Type": kind, "Cookie": cookie})
        status = connection.getresponse().status
        connection.close()
        return status

    assert [wrong_login("127.0.0.1", "127.0.0.1") for _ in range(4)] == [401, 401, 401, 429]
    assert [wrong_login("127.0.0.1", "127.0.0.2"), wrong_login("::1", "::1")] == [401, 401]


@pytest.mark.parametrize("host", ["::1", "0:0:0:0:0:0:0:1", "127.0.0.2", "localhost"])
def test_the_address_that_is_announced_is_served(start_server, tmp_path, host):
    server = start_server(tmp_path, FRACTURE_HOST=host)
    name = server.address.removeprefix("http://")
    connection = http.client.HTTPConnection(name.rpartition(":")[0].strip("[]"), int(name.rpartition(":")[2]))
    answers = {}
    for header in (name, f"[::1]:{server.address.rpartition(':')[2]}", "evil.example", "[::2]"):
        connection.request("GET", "/", headers={"Host": header})
        answer = connection.getresponse()
        answer.read()
        answers[header] = answer.status
    connection.close()
    assert list(answers.values()) == [200, 200, 400, 400][-len(answers) :]


def test_a_listed_address_is_served_with_and_without_brackets(settings, service):
    names = ("2001:db8::1", "[2001:db8::2]", ".clinic.example", "X-Ray.example:8443")
    app = create_app(changed(settings, hostnames=names), predictor=service)
    served = ("[2001:db8::1]:8000", "[2001:DB8:0::2]", "a.clinic.example", "x-ray.example", "[::1]", "localhost")
    refused = ("[2001:db8::3]", "evil.example", "clinic.example.evil", "2001", "xclinic.example")
    answers = {host: app.test_client().get("/healthz", headers={"Host": host}).status_code for host in served + refused}
    app.extensions["fracture"].store.close()
    assert answers == dict.fromkeys(served, 200) | dict.fromkeys(refused, 400)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, "http://localhost/api/v1/predictions"),
        ({"trusted_proxies": 1}, "http://SERVER/api/v1/predictions"),
        ({"trusted_proxies": 1, "hostnames": ("xray.example",)}, "http://xray.example/api/v1/predictions"),
    ],
)
def test_the_description_of_the_api_prints_only_a_name_that_is_known(settings, service, changes, shown):
    app = create_app(changed(settings, login=False, **changes), predictor=service)
    wanted = "xray.example" if changes.get("hostnames") else "evil.example" if changes else "localhost"
    page = app.test_client().get("/api", headers={"X-Forwarded-Host": wanted}).text
    app.extensions["fracture"].store.close()
    assert f"-F file=@wrist.png {shown}" in page
    assert "evil.example" not in page
