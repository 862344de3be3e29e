"""Who may do what: logging in, tokens, other people's results, other sites' pages, and too much of everything."""

import io
import re
import time

import pytest

from tests.webapp.bright import dark_plate
from tests.webapp.conftest import LIKELY, ClosingClient, changed, encoded, form_token
from webapp import create_app
from webapp.store import ResultMetadata
from webapp.store.accounts import ADMIN, READER, AccountError
from webapp.store.audit import PACS

PASSWORD = "correct horse battery"
PLATE = encoded(dark_plate(LIKELY))


@pytest.fixture
def settings(settings):
    return changed(settings, login=True, secret_key="k" * 32, logins_per_minute=0)


@pytest.fixture
def app(app):
    accounts = app.extensions["fracture"].store.accounts
    for name, role in (("anna", READER), ("ben", READER), ("root", ADMIN)):
        accounts.add_user(name, role, PASSWORD, by="test")
    app.test_client_class = ClosingClient
    return app


def browser(app, name=None, password=PASSWORD):
    """Return a client, logged in as `name`."""
    client = app.test_client()
    if name:
        data = {"name": name, "password": password, "csrf_token": form_token(client, "/login"), "after": "/history"}
        client.post("/login", data=data)
    return client


def upload(client, data=PLATE, **headers):
    return client.post("/api/v1/predictions", data={"file": (io.BytesIO(data), "doe.png")}, headers=headers)


class TestLogin:
    def test_without_one_the_page_asks_and_the_api_says_so(self, app):
        client = browser(app)
        answer = client.get("/history?finding=likely")
        assert (answer.status_code, answer.location) == (302, "/login?next=/history?finding%3Dlikely")
        answer = upload(client)
        assert answer.status_code == 401
        assert answer.json["error"] == "Please log in, or send a token as 'Authorization: Bearer TOKEN'."
        for path in ("/healthz", "/login", "/static/style.css"):
            assert client.get(path).status_code == 200
        assert client.get("/metrics").status_code == 401

    def test_the_right_password_leads_to_where_one_was_going(self, app):
        client = browser(app)
        form = client.get("/login?next=/history").text
        assert 'name="after" value="/history"' in form
        data = {"name": "anna", "password": PASSWORD, "after": "/history", "csrf_token": form_token(client, "/login")}
        answer = client.post("/login", data=data)
        assert (answer.status_code, answer.location) == (302, "/history")
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "Log out anna" in client.get("/").text

    @pytest.mark.parametrize(("name", "password"), [("anna", "wrong password"), ("nobody", PASSWORD), ("", "")])
    def test_a_wrong_one_says_the_same_for_every_name(self, app, name, password):
        client = browser(app, name or "x", password)
        assert client.get("/history").status_code == 302
        data = {"name": name, "password": password, "csrf_token": form_token(client, "/login")}
        answer = client.post("/login", data=data)
        assert answer.status_code == 401
        assert "The name or the password is wrong." in answer.text

    @pytest.mark.parametrize(
        "target",
        ["https://evil.example/", "//evil.example", "/\\evil.example", "history", "/\t/evil.example", "/\n/x", "/\0"],
    )
    def test_it_leads_to_no_other_site(self, app, target):
        client = browser(app)
        data = {"name": "anna", "password": PASSWORD, "after": target, "csrf_token": form_token(client, "/login")}
        assert client.post("/login", data=data).location == "/"

    def test_logging_out_ends_it(self, app):
        client = browser(app, "anna")
        assert client.get("/history").status_code == 200
        client.post("/logout", data={"csrf_token": form_token(client)})
        assert client.get("/history").status_code == 302

    def test_a_new_password_ends_the_sessions_of_before(self, app):
        client = browser(app, "anna")
        app.extensions["fracture"].store.accounts.set_password("anna", "another password", by="test")
        assert client.get("/history").status_code == 302
        assert browser(app, "anna", "another password").get("/history").status_code == 200

    def test_a_session_ends_after_its_time(self, app, monkeypatch):
        client = browser(app, "anna")
        begun = time.time()
        monkeypatch.setattr(time, "time", lambda: begun + 11.9 * 3600)
        assert client.get("/history").status_code == 200
        monkeypatch.setattr(time, "time", lambda: begun + 12.1 * 3600)
        assert client.get("/history").status_code == 302

    def test_a_page_of_before_another_one_logged_in_does_nothing_as_that_one(self, app):
        client = browser(app, "anna")
        assert '<meta name="account" content="anna">' in client.get("/").text
        assert upload(client, **{"X-Account": "anna"}).status_code == 201
        answer = upload(client, **{"X-Account": "ben"})
        assert answer.status_code == 409
        assert answer.json["error"].startswith("Another tab is now logged in as anna")

    def test_a_form_is_not_even_read_before_it_is_known_who_asks(self, app):
        client = browser(app)
        assert client.post("/", data={"file": (io.BytesIO(PLATE), "a.png")}).status_code == 302
        assert client.post("/login", data={"name": "x" * 20_000}).status_code == 413

    @pytest.mark.parametrize(("proxies", "secure"), [(0, False), (1, True)])
    def test_behind_a_proxy_the_cookie_goes_over_tls_alone(self, settings, service, proxies, secure):
        app = create_app(changed(settings, trusted_proxies=proxies), predictor=service)
        assert ("Secure" in app.test_client().get("/login").headers["Set-Cookie"]) == secure
        app.extensions["fracture"].store.close()

    def test_a_session_cookie_of_another_key_is_nobodys(self, app, settings, service):
        cookie = browser(app, "anna").get_cookie("fracture_session")
        other = create_app(changed(settings, secret_key="o" * 32), predictor=service)
        client = other.test_client()
        client.set_cookie("fracture_session", cookie.value)
        assert client.get("/history").status_code == 302
        other.extensions["fracture"].store.close()


class TestTokens:
    def test_a_token_acts_for_its_user(self, app):
        accounts = app.extensions["fracture"].store.accounts
        token = accounts.add_token("anna", "pacs", by="test")
        client = browser(app)
        bearer = {"Authorization": f"Bearer {token}"}
        result = upload(client, **bearer)
        assert result.status_code == 201
        assert browser(app, "anna").get(result.json["links"]["page"]).status_code == 200
        assert client.get("/metrics", headers=bearer).status_code == 200
        accounts.revoke_token(token.partition(".")[0], by="test")
        assert upload(client, **bearer).status_code == 401

    @pytest.mark.parametrize("token", ["", "x", "fracture_", "fracture_0123.abc", "fracture_{id}.wrong", "{id}."])
    def test_what_is_no_token_opens_nothing(self, app, token):
        accounts = app.extensions["fracture"].store.accounts
        accounts.add_token("anna", "", by="test")
        token = token.format(id=accounts.tokens()[0].id)
        assert upload(browser(app), Authorization=f"Bearer {token}").status_code == 401

    def test_neither_tokens_nor_passwords_are_kept(self, app, settings):
        token = app.extensions["fracture"].store.accounts.add_token("anna", "", by="test")
        everything = b"".join(path.read_bytes() for path in settings.data_dir.rglob("*") if path.is_file())
        assert token.partition(".")[2].encode() not in everything
        assert PASSWORD.encode() not in everything
        assert everything.count(b"$argon2id$") >= 4


class TestOwners:
    def test_results_of_others_are_as_if_they_did_not_exist(self, app):
        anna, ben, root = (browser(app, name) for name in ("anna", "ben", "root"))
        links = upload(anna, encoded(dark_plate(LIKELY).astype("uint16") * 16)).json["links"]  # it has samples, too
        nothing = ben.get("/api/v1/predictions/" + "0" * 32).json
        for name, link in links.items():
            if link is None or name in ("model", "feedback"):  # for everybody; not to be read
                continue
            assert ben.get(link).status_code == 404, name
            assert anna.get(link).status_code == (405 if name == "feedback" else 200), name
        assert ben.get(links["self"]).json == nothing
        assert ben.put(links["feedback"], json={"no_fracture": True}).status_code == 404
        assert ben.delete(links["self"]).status_code == 404
        path = links["page"] + "/delete"
        assert ben.post(path, data={"csrf_token": form_token(ben)}).status_code == 404
        assert ben.get("/api/v1/predictions").json["total"] == 0
        assert anna.get("/api/v1/predictions").json["total"] == 1
        assert root.get(links["page"]).status_code == 200
        assert root.get("/api/v1/predictions").json["total"] == 1
        assert root.delete(links["self"]).status_code == 204

    def test_what_came_through_the_pacs_node_is_for_administrators(self, app, service):
        results = app.extensions["fracture"].store.results
        stored = results.add(service.predict(PLATE), ResultMetadata(PACS, "likely", "1" * 64, 0.5, 0.25))
        path = f"/api/v1/predictions/{stored.id}"
        anna, root = browser(app, "anna"), browser(app, "root")
        for name, link in root.get(path).json["links"].items():
            if link is not None and name not in ("model", "feedback", "settlement"):  # for everybody; not to be read
                assert anna.get(link).status_code == 404, name
        assert anna.put(f"{path}/feedback", json={"no_fracture": True}).status_code == 404
        assert anna.delete(path).status_code == 404
        assert anna.get("/api/v1/predictions").json["total"] == 0
        assert stored.id not in anna.get("/history").text
        assert root.get("/api/v1/predictions").json["results"][0]["source"] == "PACS"
        assert "· PACS" in root.get("/history").text

    def test_the_key_of_one_is_not_that_of_another(self, app):
        first, second = (upload(browser(app, name), **{"Idempotency-Key": "k"}).json["id"] for name in ("anna", "ben"))
        assert first != second


class TestOtherSites:
    """A page of another site that the browser of someone who is logged in has open."""

    @pytest.mark.parametrize(
        "headers",
        [
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://localhost:9999"},
            {"Origin": "http://[::1"},
        ],
    )
    def test_nothing_that_it_sends_is_done(self, app, headers):
        client = browser(app, "anna")
        link = upload(client).json["links"]["self"]
        assert upload(client, **headers).status_code == 403
        assert client.delete(link, headers=headers).status_code == 403
        assert client.post("/logout", data={"csrf_token": form_token(client)}, headers=headers).status_code == 403
        assert client.get(link).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Sec-Fetch-Site": "same-origin"},
            {"Origin": "http://localhost"},
            {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
        ],
    )
    def test_our_own_pages_are_heard(self, app, headers):
        assert upload(browser(app, "anna"), **headers).status_code == 201

    @pytest.mark.parametrize("path", ["/", "/login", "/logout", "/results/x/delete"])
    def test_no_form_works_without_its_token(self, app, path):
        client = browser(app, "anna")
        answer = client.post(path, data={"name": "anna", "password": PASSWORD})
        assert answer.status_code == 400
        assert client.get("/history").status_code == 200

    def test_every_form_carries_it(self, app):
        client = browser(app, "anna")
        upload(client)
        for path in ("/", "/history", "/login"):
            page = client.get(path).text
            forms = re.findall(r'<form[^>]*method="post".*?</form>', page, re.DOTALL)
            assert forms, path
            assert all('name="csrf_token"' in form for form in forms), path

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example"])
    def test_a_name_that_is_not_ours_gets_nothing(self, app, host):
        # Another site's name that suddenly resolves to this machine: its pages would be of the same origin.
        answer = browser(app).get("/login", headers={"Host": host})
        assert (answer.status_code, answer.headers["X-Frame-Options"]) == (400, "DENY")


class TestRates:
    def test_guessing_passwords_is_slowed_down(self, settings, service):
        app = create_app(changed(settings, logins_per_minute=3), predictor=service)
        client = app.test_client()
        token = form_token(client, "/login")
        data = {"name": "anna", "password": "guess", "csrf_token": token}
        statuses = [client.post("/login", data=data).status_code for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        app.extensions["fracture"].store.close()

    def test_machines_of_one_network_count_together_in_ipv6(self, settings, service):
        app = create_app(changed(settings, logins_per_minute=1), predictor=service)
        statuses = []
        for address in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"):
            client = app.test_client()
            data = {"name": "anna", "password": "guess", "csrf_token": form_token(client, "/login")}
            statuses.append(client.post("/login", data=data, environ_base={"REMOTE_ADDR": address}).status_code)
        assert statuses == [401, 429, 401]
        app.extensions["fracture"].store.close()

    def test_uploads_have_a_rate_for_each_user(self, app, settings, service):
        limited = create_app(changed(settings, uploads_per_minute=2), predictor=service)
        limited.test_client_class = ClosingClient
        anna, ben = browser(limited, "anna"), browser(limited, "ben")
        answers = [upload(anna) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201, 201, 429]
        assert answers[2].json["error"] == "Too many uploads within a minute; please wait a moment."
        assert answers[2].headers["Retry-After"] == "10"
        assert upload(ben).status_code == 201
        limited.extensions["fracture"].store.close()


class TestAccounts:
    @pytest.mark.parametrize(
        ("name", "role", "password", "sentence"),
        [
            ("Anna", READER, PASSWORD, "user 'Anna': expected lower-case letters, digits and . _ -, and not local"),
            (
                "nobody",
                READER,
                PASSWORD,
                "user 'nobody': expected lower-case letters, digits and . _ -, and not local, nobody",
            ),
            ("retention", READER, PASSWORD, "user 'retention': expected lower-case letters"),
            ("local", READER, PASSWORD, "user 'local': expected lower-case letters"),
            ("carl", "king", PASSWORD, "role of carl: expected reader, adjudicator or admin, got 'king'"),
            ("carl", READER, "short", "password of carl: expected at least 12 characters, got 5"),
            ("anna", READER, PASSWORD, "user anna exists already"),
        ],
    )
    def test_what_is_wrong_is_named(self, app, name, role, password, sentence):
        with pytest.raises(AccountError) as caught:
            app.extensions["fracture"].store.accounts.add_user(name, role, password, by="test")
        assert str(caught.value).startswith(sentence)

    def test_a_new_user_does_not_inherit_from_a_former_one_of_that_name(self, app):
        accounts = app.extensions["fracture"].store.accounts
        upload(browser(app, "anna"))
        accounts.remove_user("anna", by="test")
        with pytest.raises(AccountError, match="results of a former anna are still stored"):
            accounts.add_user("anna", READER, PASSWORD, by="test")

    def test_a_removed_user_is_out_with_all_tokens(self, app):
        accounts = app.extensions["fracture"].store.accounts
        token, client = accounts.add_token("anna", "", by="test"), browser(app, "anna")
        accounts.remove_user("anna", by="test")
        assert client.get("/history").status_code == 302
        assert accounts.of_token(token) is None
        assert accounts.tokens() == []
        with pytest.raises(AccountError, match="there is no user anna"):
            accounts.remove_user("anna", by="test")
