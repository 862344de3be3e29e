"""Authentication and protection of requests: sessions, API tokens, same-origin checks and rate limits."""

from __future__ import annotations

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
from werkzeug.exceptions import SecurityError
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response as AnyResponse

from .addresses import client_network, host_name
from .errors import RequestError
from .settings import Settings
from .store import StoreUnavailable
from .store.accounts import LOCAL, Account

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
STATE_CHANGING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# Served alike to everybody, without a look at the accounts.
ANONYMOUS_ENDPOINTS = frozenset({"static", "probes.healthz", "probes.readyz", "pages.favicon"})
# Served without a login, also while nobody can tell who asks.
PUBLIC_ENDPOINTS = frozenset({"login.form", "login.enter", "login.leave"})
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
        # Not Flask's TRUSTED_HOSTS, which can match no IPv6 address.
        HOST_NAMES=_host_names(settings, loopback=loopback),
    )
    app.extensions["fracture rate limiter"] = RateLimiter()
    app.session_interface = PrefixedSessions()
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        inner = _with_valid_prefix(app.wsgi_app)
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            inner, x_for=hops, x_proto=hops, x_host=hops, x_prefix=hops
        )
    app.before_request(_reject_unknown_host)
    app.before_request(_reject_cross_origin)
    app.before_request(_authenticate)
    csrf.init_app(app)  # after authentication, because it parses the whole form


def current_account() -> Account:
    """Return the account that the current request acts for."""
    account: Account = g.account
    return account


def sees_everything(account: Account) -> bool:
    """Return whether an account may see the results of others."""
    return account.can_settle or bool(current_app.extensions["fracture"].settings.shared_reading)


def limit_uploads() -> None:
    """Count one upload of the current user, or without a login of the client. Raises RequestError with 429."""
    client = _client() if g.account is LOCAL else g.account.name
    _limit_rate("uploads", client, current_app.extensions["fracture"].settings.uploads_per_minute)


def limit_logins() -> None:
    """Count one attempt to log in of the client, who may be logged in already. Raises RequestError with 429."""
    _limit_rate("attempts to log in", _client(), current_app.extensions["fracture"].settings.logins_per_minute)


def _limit_rate(action: str, client: str, per_minute: int) -> None:
    current_app.extensions["fracture rate limiter"].check(action, client, per_minute)


def _with_valid_prefix(app: WSGIApplication) -> WSGIApplication:
    """Return `app` without a URL prefix that is none, such as `//elsewhere.example`, and without a slash at its end."""

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        prefix = environ.get("SCRIPT_NAME", "").rstrip("/")
        environ["SCRIPT_NAME"] = prefix if URL_PREFIX.fullmatch(prefix) else ""
        return app(environ, start_response)

    return call


def _client() -> str:
    peer = request.environ.get("werkzeug.proxy_fix.orig", {}).get("REMOTE_ADDR")
    return client_network(request.remote_addr or "", peer or "")


def start_session(account: Account) -> None:
    """Start a browser session for `account`."""
    session.clear()
    session.permanent = True
    session["name"], session["stamp"], session["begun"] = account.name, account.stamp, time.time()


def _host_names(settings: Settings, *, loopback: bool) -> frozenset[str] | None:
    """Return the host names this server accepts, against DNS rebinding; None accepts any."""
    names = settings.hostnames
    if not names and loopback and not settings.trusted_proxies:
        names = (settings.host,)
    return frozenset(map(host_name, [*names, *LOOPBACK_HOSTS])) if names else None


def checked_host() -> str | None:
    """Return the Host of the request where only known names are accepted, else None: anybody can send any."""
    return None if current_app.config["HOST_NAMES"] is None else request.host


def _reject_unknown_host() -> None:
    known, name = current_app.config["HOST_NAMES"], host_name(request.host)
    if known is None or name in known or any(ref.startswith(".") and f".{name}".endswith(ref) for ref in known):
        return
    raise SecurityError("Host is not trusted.")


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
    if request.endpoint in ANONYMOUS_ENDPOINTS:
        return None
    try:
        account = _account_of_request()
    except StoreUnavailable as error:
        if request.endpoint not in PUBLIC_ENDPOINTS:
            raise
        current_app.logger.error("Nobody can tell who asks for %s: %s", request.endpoint, error)
        account = None
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
