"""Manage users, API tokens and the audit log, on the machine that the page runs on.

    fracture-det admin add-user anna --role reader       asks for the password
    fracture-det admin add-token anna --label pacs       prints the token, once
    fracture-det admin verify-audit                      exit code 1 if a line was changed; writes nothing

It works on the store of FRACTURE_DATA_DIR and FRACTURE_DATABASE_URL, see docs/api.md.
"""

from __future__ import annotations

import argparse
import getpass
import os
import pwd
import sys
from datetime import datetime, timezone
from pathlib import Path

from . import open_store
from .settings import Settings, SettingsError
from .store import Store, StoreError, StoreUnavailable, verify_audit
from .store.accounts import READER, ROLES, AccountError
from .store.audit_chain import AuditError

ACTOR = "command line"


def main(argv: list[str] | None = None, *, prog: str = "python -m webapp.admin") -> int:
    """Run one command; return the exit code."""
    args = build_parser(prog).parse_args(argv)
    try:
        settings = Settings.from_environ()
        become_owner_of(settings.data_dir)
        if args.run is _verify:
            return _verify(settings)
        store = open_store(settings)
    except (SettingsError, StoreError) as error:
        print(f"fracture_det: {error}", file=sys.stderr)
        return 2
    try:
        args.run(store, args)
    except (AccountError, AuditError, StoreUnavailable) as error:
        print(f"fracture_det: {error}", file=sys.stderr)
        return 1
    finally:
        store.close()
    return 0


def become_owner_of(folder: Path) -> None:
    """If root, become the owner of `folder`, who could not read root's files and whose links root must not follow."""
    owner = folder.stat() if folder.is_dir() else None
    if os.geteuid() or owner is None or not owner.st_uid:
        return
    try:
        os.initgroups(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
    except KeyError:  # a user id without a name
        os.setgroups([])
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the commands."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = commands.add_parser("add-user", help="create a user; asks for the password, or reads it from a pipe")
    add.add_argument("name", help="lower-case letters, digits and . _ -")
    add.add_argument(
        "--role",
        choices=ROLES,
        default=READER,
        help="an adjudicator sees everybody's results and settles what readers disagree on; an admin also deletes them "
        "(default: reader)",
    )
    add.set_defaults(run=_add_user)
    for name, run, text in (
        ("set-password", _set_password, "change a password, which ends the user's sessions"),
        ("remove-user", _remove_user, "remove a user with all tokens"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("name")
        command.set_defaults(run=run)
    commands.add_parser("users", help="list users and tokens").set_defaults(run=_users)
    token = commands.add_parser("add-token", help="create an API token and print it, once")
    token.add_argument("name", help="the user it acts for")
    token.add_argument("--label", default="", help="what it is for")
    token.set_defaults(run=_add_token)
    revoke = commands.add_parser("revoke-token", help="revoke a token")
    revoke.add_argument("token", help="the part before its dot")
    revoke.set_defaults(run=_revoke_token)
    commands.add_parser("verify-audit", help="check the audit log, also of a backup").set_defaults(run=_verify)
    commands.add_parser("rotate-audit-key", help="sign the audit log with a new key").set_defaults(run=_rotate)
    commands.add_parser("sweep", help="delete expired results now").set_defaults(run=_sweep)
    return parser


def _add_user(store: Store, args: argparse.Namespace) -> None:
    account = store.accounts.add_user(args.name, args.role, _password(args.name), by=ACTOR)
    print(f"{account.name} can log in as {account.role}")


def _set_password(store: Store, args: argparse.Namespace) -> None:
    store.accounts.set_password(args.name, _password(args.name), by=ACTOR)
    print(f"the password of {args.name} is changed, and all their sessions have ended")


def _remove_user(store: Store, args: argparse.Namespace) -> None:
    store.accounts.remove_user(args.name, by=ACTOR)
    print(f"{args.name} is removed")


def _users(store: Store, _args: argparse.Namespace) -> None:
    for account in store.accounts.users():
        print(f"{account.name}  {account.role}")
    for token in store.accounts.tokens():
        created = datetime.fromtimestamp(token.created_at, timezone.utc)
        print(f"  token {token.id}  of {token.user}  {created:%Y-%m-%d}  {token.label}".rstrip())


def _add_token(store: Store, args: argparse.Namespace) -> None:
    print(store.accounts.add_token(args.name, args.label, by=ACTOR))


def _revoke_token(store: Store, args: argparse.Namespace) -> None:
    store.accounts.revoke_token(args.token, by=ACTOR)
    print(f"token {args.token} is revoked")


def _verify(settings: Settings) -> int:
    """Verify the log as it is, without a store, whose opening would migrate it and make a key."""
    try:
        found = verify_audit(
            settings.data_dir,
            url=settings.database_url,
            audit_folder=settings.audit_dir,
            audit_key=settings.audit_key,
        )
    except (AuditError, StoreUnavailable) as error:
        print(f"fracture_det: {error}", file=sys.stderr)
        return 1
    begun = "" if found.since is None else f" since {found.since}"
    print(f"{found.lines} lines, none changed{begun}; the hash of the last one is {found.last_hash}")
    if found.unsigned:
        print(f"the first {found.unsigned} are of before there was a key, which vouches for them only since then")
    return 0


def _rotate(store: Store, _args: argparse.Namespace) -> None:
    print(f"the audit log is signed with the key {store.audit.rotate_key(by=ACTOR)} from now on")


def _sweep(store: Store, _args: argparse.Namespace) -> None:
    print(f"{store.results.sweep()} results deleted")


def _password(name: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass(f"Password of {name}: ")
    if getpass.getpass("Again: ") != first:
        raise AccountError("the two passwords differ")
    return first


if __name__ == "__main__":
    sys.exit(main())
