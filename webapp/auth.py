"""Authentication and protection of requests: sessions, API tokens, same-origin checks and rate limits."""

from __future__ import annotations

import ipaddress
import re
import secrets
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from flask import Flask, current_app, g, redirect, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFProtect
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response as AnyResponse

from .errors import RequestError
from .settings import Settings
from .store.accounts import LOCAL, Account

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOOPBACK_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
STATE_CHANGING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# Served without a login.
PUBLIC_ENDPOINTS = frozenset(
    {"static", "probes.healthz", "probes.readyz", "pages.favicon", "login.form", "login.enter"}
)
MAX_LOGIN_BYTES = 16_384
# What a proxy may put before every path: `/fracture`, `/tools/fracture`.
URL_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
csrf = CSRFProtect()


class PrefixedSessions(SecureCookieSessionInterface):
    """Sessions whose cookie is sent to this page alone, and not to whatever else lies on its host."""

    def get_cookie_path(self, app: Flask) -> str:
        """Return the URL prefix of the page."""
        return request.script_root or "/"


class RateLimiter:
    """Limits how often each client may do something per minute; counts live in the memory of this process."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def check(self, action: str, client: str, per_minute: int) -> None:
        """Count one action. Raises RequestError with 429 above the limit; 0 `per_minute` means no limit."""
        if not per_minute:
            return
        rate = parse(f"{per_minute} per minute")
        if not self._limiter.hit(rate, action, client):
            raise RequestError(
                429, f"Too many {action} within a minute; please wait a moment.", reason="rate", retry_after_s=10
            )


def register(app: Flask, settings: Settings, *, loopback: bool) -> None:
    """Authenticate every request to `app` before its view runs."""
    app.config.update(
        # Without a login a session holds only the CSRF token, so a key that dies with the process is enough.
        SECRET_KEY=settings.secret_key or secrets.token_hex(32),
        SESSION_COOKIE_NAME="fracture_session",
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SECURE=not loopback or bool(settings.trusted_proxies),
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=timedelta(hours=settings.session_hours),
        WTF_CSRF_TIME_LIMIT=None,
        # Our pages send no Referer (Referrer-Policy: no-referrer); the origin is checked instead.
        WTF_CSRF_SSL_STRICT=False,
        TRUSTED_HOSTS=_trusted_hosts(settings, loopback=loopback),
    )
    app.extensions["fracture rate limiter"] = RateLimiter()
    app.session_interface = PrefixedSessions()
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        inner = _with_valid_prefix(app.wsgi_app)
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            inner, x_for=hops, x_proto=hops, x_host=hops, x_prefix=hops
        )
    app.before_request(_reject_cross_origin)
    app.before_request(_authenticate)
    csrf.init_app(app)  # after authentication, because it parses the whole form


def current_account() -> Account:
    """Return the account that the current request acts for."""
    account: Account = g.account
    return account


def limit_rate(action: str, per_minute: int) -> None:
    """Count one action of the current client. Raises RequestError with 429 above `per_minute`."""
    client = g.account.name if "account" in g and g.account is not LOCAL else _client_network(request.remote_addr or "")
    current_app.extensions["fracture rate limiter"].check(action, client, per_minute)


def _with_valid_prefix(app: WSGIApplication) -> WSGIApplication:
    """Return `app` without a URL prefix that is none, such as `//elsewhere.example`, and without a slash at its end."""

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        prefix = environ.get("SCRIPT_NAME", "").rstrip("/")
        environ["SCRIPT_NAME"] = prefix if URL_PREFIX.fullmatch(prefix) else ""
        return app(environ, start_response)

    return call


def _client_network(address: str) -> str:
    """Return the /64 network of an IPv6 address, since one machine may use any address in it, else the address."""
    try:
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    except ValueError:
        return address


def start_session(account: Account) -> None:
    """Start a browser session for `account`."""
    session.clear()
    session.permanent = True
    session["name"], session["stamp"], session["begun"] = account.name, account.stamp, time.time()


def _trusted_hosts(settings: Settings, *, loopback: bool) -> list[str] | None:
    """Return the host names this server accepts, against DNS rebinding; None accepts any."""
    if settings.hostnames:
        return [*settings.hostnames, *LOOPBACK_HOSTS]
    return [*LOOPBACK_HOSTS, settings.host] if loopback and not settings.trusted_proxies else None


def _reject_cross_origin() -> None:
    """Reject a request sent by a page of another site, by Fetch Metadata or, where that is missing, the Origin.

    Our own forms come with the Origin `null`, because the pages send no referrer.
    """
    if request.method not in STATE_CHANGING_METHODS:
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is None:
        is_foreign = origin is not None and origin.partition("//")[2] != request.host
    else:
        is_foreign = site not in ("same-origin", "none")
    if is_foreign:
        raise RequestError(403, "This request came from a page of another site and was rejected.", reason="origin")


def _authenticate() -> AnyResponse | None:
    if not current_app.extensions["fracture"].settings.login:
        g.account = LOCAL
        return None
    account = _account_of_request()
    page_account = request.headers.get("X-Account")  # whom the page that sent this was made for
    if account is not None and page_account not in (None, account.name):
        message = f"Another tab is now logged in as {account.name}; reload this page to continue as {account.name}."
        raise RequestError(409, message, reason="login")
    if account is not None:
        g.account = account
        return None
    if request.endpoint == "login.enter":
        request.max_content_length = MAX_LOGIN_BYTES
    if request.endpoint in PUBLIC_ENDPOINTS or request.endpoint is None:
        return None
    if request.path.startswith("/api/") or request.path == "/metrics":
        raise RequestError(401, "Please log in, or send a token as 'Authorization: Bearer TOKEN'.", reason="login")
    wanted = request.script_root + request.full_path.rstrip("?") if request.method == "GET" else None
    return redirect(url_for("login.form", next=wanted))


def _account_of_request() -> Account | None:
    context = current_app.extensions["fracture"]
    accounts = context.store.accounts
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        account: Account | None = accounts.of_token(token.strip())
        return account
    max_age_s = 3600 * context.settings.session_hours
    if {"name", "stamp", "begun"} <= session.keys() and time.time() - session["begun"] < max_age_s:
        return accounts.in_session(session["name"], session["stamp"])
    return None
