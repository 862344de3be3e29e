"""The page to log in on, and the way out."""

from __future__ import annotations

import re

from flask import Blueprint, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response as AnyResponse

from .auth import asker, begin_session, limit_rate
from .context import app_context
from .store.audit import Act

blueprint = Blueprint("login", __name__)
# A path of printable letters without a backslash: browsers take "/\\", and a slash behind a tab, for another host.
INSIDE = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")
WRONG = "The name or the password is wrong."


@blueprint.get("/login")
def form() -> str:
    """Ask for name and password."""
    return render_template("login.html", after=_inside(request.args.get("next")), name="", wrong=None)


@blueprint.post("/login")
def enter() -> AnyResponse | tuple[str, int]:
    """Begin a session if the password is right; both outcomes are recorded."""
    house = app_context()
    limit_rate("attempts to log in", house.settings.logins_per_minute)
    name, after = request.form.get("name", "").strip(), _inside(request.form.get("after"))
    account = house.store.accounts.log_in(name, request.form.get("password", ""))
    if account is None:
        # The name is what a stranger typed, perhaps a password by mistake: only one that exists is recorded.
        known = any(user.name == name for user in house.store.accounts.users())
        house.store.audit.record(Act("nobody", "log in refused", name if known else None))
        return render_template("login.html", after=after, name=name, wrong=WRONG), 401
    begin_session(account)
    house.store.audit.record(Act(account.name, "log in"))
    return redirect(after)


@blueprint.post("/logout")
def leave() -> AnyResponse:
    """End the session."""
    app_context().store.audit.record(Act(asker().name, "log out"))
    session.clear()
    return redirect(url_for("login.form"))


def _inside(target: str | None) -> str:
    """Return `target` if it is a path of this site, else the upload page."""
    return target if target and INSIDE.fullmatch(target) else url_for("pages.upload")
