"""Logging in and out."""

from __future__ import annotations

import re

from flask import Blueprint, current_app, g, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response as AnyResponse

from .auth import limit_logins, start_session
from .context import app_context
from .store import StoreUnavailable
from .store.audit import NOBODY, AuditEntry

blueprint = Blueprint("login", __name__)
# Printable characters without a backslash: browsers take "/\\", or a slash after a tab, for another host.
LOCAL_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")
WRONG_LOGIN = "The name or the password is wrong."


@blueprint.get("/login")
def form() -> str:
    """Show the login form."""
    return render_template("login.html", after=_local_path(request.args.get("next")), name="", error=None)


@blueprint.post("/login")
def enter() -> AnyResponse | tuple[str, int]:
    """Start a session if the password is right; both outcomes are recorded in the audit log."""
    context = app_context()
    limit_logins()
    name, after = request.form.get("name", "").strip(), _local_path(request.form.get("after"))
    account = context.store.accounts.log_in(name, request.form.get("password", ""))
    if account is None:
        # A stranger may have typed a password as the name: only names that exist are recorded.
        is_known = any(user.name == name for user in context.store.accounts.users())
        context.store.audit.record(AuditEntry(NOBODY, "log in refused", name if is_known else None))
        return render_template("login.html", after=after, name=name, error=WRONG_LOGIN), 401
    start_session(account)
    context.store.audit.record(AuditEntry(account.name, "log in"))
    return redirect(after)


@blueprint.post("/logout")
def leave() -> AnyResponse:
    """End the session, also while the store fails: an unrecorded logout is better than one that does not happen."""
    account = g.get("account")
    session.clear()
    try:
        if account is not None:
            app_context().store.audit.record(AuditEntry(account.name, "log out"))
    except StoreUnavailable as error:
        current_app.logger.error("A logout could not be recorded: %s", error)
    return redirect(url_for("login.form"))


def _local_path(target: str | None) -> str:
    """Return `target` if it is a path of this page, under its URL prefix, else the upload page."""
    is_local = target is not None and LOCAL_PATH.fullmatch(target) and target.startswith(f"{request.script_root}/")
    return target if target and is_local else url_for("pages.upload")
