"""Who asks, and whether the question comes from where it says: login, sessions, tokens, origins and rates."""

from __future__ import annotations

import ipaddress
import secrets
import time
from datetime import timedelta

from flask import Flask, current_app, g, redirect, request, session, url_for
from flask_wtf.csrf import CSRFProtect
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response as AnyResponse

from .errors import RequestError
from .settings import Settings
from .store.accounts import LOCAL, Account

LOOPBACK_NAMES = ["localhost", "127.0.0.1", "[::1]"]
UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# Asked by browsers and by other machines before anyone has logged in.
OPEN = frozenset({"static", "probes.healthz", "probes.readyz", "pages.favicon", "login.form", "login.enter"})
LARGEST_LOGIN_BYTES = 16_384
csrf = CSRFProtect()


class Rates:
    """Counts what each client did in the last minute, in the memory of this process."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def check(self, what: str, client: str, per_minute: int) -> None:
        """Count one act. Raises RequestError with 429 when it is one too many; 0 `per_minute` means no limit."""
        if not per_minute:
            return
        rate = parse(f"{per_minute} per minute")
        if not self._limiter.hit(rate, what, client):
            raise RequestError(
                429, f"Too many {what} within a minute; please wait a little.", reason="rate", retry_after_s=10
            )


def register(app: Flask, settings: Settings, *, loopback: bool) -> None:
    """Make `app` ask who asks, before every request."""
    app.config.update(
        # Without a login a session holds nothing but the form's token, and may end with the process.
        SECRET_KEY=settings.secret_key or secrets.token_hex(32),
        SESSION_COOKIE_NAME="fracture_session",
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SECURE=not loopback or bool(settings.trusted_proxies),
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=timedelta(hours=settings.session_hours),
        WTF_CSRF_TIME_LIMIT=None,
        # A page that says no-referrer sends none; the origin is checked instead.
        WTF_CSRF_SSL_STRICT=False,
        TRUSTED_HOSTS=_hosts(settings, loopback=loopback),
    )
    app.extensions["fracture rates"] = Rates()
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    app.before_request(_refuse_foreign_origins)
    app.before_request(_know_who_asks)
    csrf.init_app(app)  # after the question who asks: it takes the whole form apart


def asker() -> Account:
    """Return who asks."""
    found: Account = g.account
    return found


def limit_rate(what: str, per_minute: int) -> None:
    """Count one act of the client. Raises RequestError."""
    client = g.account.name if "account" in g and g.account is not LOCAL else _network(request.remote_addr or "")
    current_app.extensions["fracture rates"].check(what, client, per_minute)


def _network(address: str) -> str:
    """Return the network of an IPv6 address, of which each of its machines has any number, else the address."""
    try:
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    except ValueError:
        return address


def begin_session(account: Account) -> None:
    """Make the browser's session that of `account`."""
    session.clear()
    session.permanent = True
    session["name"], session["stamp"], session["begun"] = account.name, account.stamp, time.time()


def _hosts(settings: Settings, *, loopback: bool) -> list[str] | None:
    """Return the names this server answers to: a page of another name that resolves to this machine gets nothing."""
    if settings.hostnames:
        return [*settings.hostnames, *LOOPBACK_NAMES]
    return [*LOOPBACK_NAMES, settings.host] if loopback and not settings.trusted_proxies else None


def _refuse_foreign_origins() -> None:
    """Refuse what another site's page makes a browser send: Fetch Metadata says so, or the Origin where it is missing.

    A page with no-referrer sends its own forms with the Origin `null`.
    """
    if request.method not in UNSAFE:
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is None:
        foreign = origin is not None and origin.partition("//")[2] != request.host
    else:
        foreign = site not in ("same-origin", "none")
    if foreign:
        raise RequestError(403, "This request came from another site's page and was refused.", reason="origin")


def _know_who_asks() -> AnyResponse | None:
    house = current_app.extensions["fracture"]
    if not house.settings.login:
        g.account = LOCAL
        return None
    account = _of_request()
    seen_as = request.headers.get("X-Asker")
    if account is not None and seen_as not in (None, account.name):
        sentence = f"In another tab {account.name} has logged in; reload this page to go on as {account.name}."
        raise RequestError(409, sentence, reason="login")
    if account is not None:
        g.account = account
        return None
    if request.endpoint == "login.enter":
        request.max_content_length = LARGEST_LOGIN_BYTES
    if request.endpoint in OPEN or request.endpoint is None:
        return None
    if request.path.startswith("/api/") or request.path == "/metrics":
        raise RequestError(401, "Please log in, or send a token as 'Authorization: Bearer TOKEN'.", reason="login")
    return redirect(url_for("login.form", next=request.full_path.rstrip("?") if request.method == "GET" else None))


def _of_request() -> Account | None:
    house = current_app.extensions["fracture"]
    accounts = house.store.accounts
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer":
        found: Account | None = accounts.of_token(token.strip())
        return found
    lasts_s = 3600 * house.settings.session_hours
    if {"name", "stamp", "begun"} <= session.keys() and time.time() - session["begun"] < lasts_s:
        return accounts.in_session(session["name"], session["stamp"])
    return None
