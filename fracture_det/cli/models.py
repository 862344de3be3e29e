"""The registry of detectors: signed versions, which one is served, and the way back.

    fracture-det models keygen
    fracture-det models add shipped --calibration weights/shipped/calibration.json
    fracture-det models promote 4f2a --verdict output/gate
    fracture-det models rollback

A version is a folder of the registry that never changes: the detector's files, its calibration, model card,
configuration, verdict, what it was trained on, and a signature over the SHA-256 of all of it. It is a candidate,
runs in the shadow of the served one, is served, or is retired. `fracture-det serve --detector registry:FOLDER` serves
the one that is served, and follows every change without a restart. VERSION is a name, or the first digits of its hash.

`promote` demands a verdict of `fracture-det gate` that lets exactly these files pass against the version that is
served, or --without-gate with a reason. Exit code 0: done, 1: refused, or a version is not as it was signed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fracture_det.cli.page import import_page
from fracture_det.evaluation.promotion import Files, check_promotion
from fracture_det.evaluation.verdict import VERDICT_FILE, Verdict
from fracture_det.registry.adding import Source, add_version
from fracture_det.registry.errors import RegistryError
from fracture_det.registry.registry import Grounds, Judge, Registry
from fracture_det.registry.signatures import generate_key
from fracture_det.registry.states import Change
from fracture_det.registry.versions import CALIBRATION_FILE, Version
from fracture_det.structures.markdown_table import markdown_table
from fracture_det.structures.wording import counted

# Whether an action takes a version.
NEEDED, OPTIONAL = "needed", "optional"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command, with one for each action."""
    parser = argparse.ArgumentParser(
        prog="fracture-det models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--models", type=Path, metavar="DIR", help="the registry (default: FRACTURE_MODELS, else models)"
    )
    where.add_argument(
        "--keys", type=Path, metavar="DIR", help="keys (default: FRACTURE_MODELS_KEYS, else beside it, DIR.keys)"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str, *, version: str = "") -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=text, description=f"{text}.", parents=[where])
        if version:
            made.add_argument(
                "version",
                nargs="?" if version == OPTIONAL else None,
                metavar="VERSION",
                help="its name, or first digits of its hash",
            )
        return made

    action("keygen", "make the site's Ed25519 key, which signs versions")
    _add_options(action("add", "copy and sign a detector as a candidate"))
    action("list", "all versions and their states")
    action("show", "one version: its files, its origin and its history", version=NEEDED)
    action("verify", "check every byte of a version, or of all", version=OPTIONAL)
    promote = action("promote", "serve a version, by a verdict of the gate", version=NEEDED)
    grounds = promote.add_mutually_exclusive_group()
    grounds.add_argument("--verdict", type=Path, metavar="PATH", help="verdict.json (default: that of the version)")
    words = "serve it without a verdict; the history says why"
    grounds.add_argument("--without-gate", type=_one_line, metavar="REASON", help=words)
    rollback = action("rollback", "serve the version again that was served before")
    shadow = action("shadow", "let a version run beside the served one, its answers unseen", version=OPTIONAL)
    shadow.add_argument("--stop", action="store_true", help="let none run")
    pin = action("pin", "hold a version: served, no other is promoted; not served, it is not", version=NEEDED)
    pin.add_argument("--off", action="store_true", help="hold it no longer")
    retire = action("retire", "dismiss a version that is not served", version=NEEDED)
    for changing in (promote, rollback, shadow, pin, retire):
        changing.add_argument("--reason", type=_one_line, metavar="TEXT", help="why, for the history")
    action("compare", "what a shadow said beside the served version, of results in the page's store", version=OPTIONAL)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("detector", metavar="URI", help="shipped, or scheme:path such as ensemble:output/again")
    add("--calibration", type=Path, metavar="FILE", help="its calibration.json (default: none, raw scores)")
    add("--card", type=Path, metavar="FILE", help="its model card (default: MODEL_CARD.md beside it)")
    add("--config", type=Path, action="append", default=[], metavar="FILE", help="what it was trained by; repeat it")
    add("--verdict", type=Path, metavar="PATH", help="of fracture-det gate: verdict.json, or its folder")
    add("--data", type=Path, metavar="PATH", help="what it was trained on: a snapshot, or a COCO file")
    add("--parent", action="append", default=[], metavar="VERSION", help="version it was trained on from; repeat it")
    add("--note", default="", metavar="TEXT", help="anything else; it is signed, too")


def main(argv: list[str] | None = None) -> int:
    """Run one action; return its exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.action == "shadow" and (arguments.version is None) != arguments.stop:
        parser.error("shadow: expected VERSION or --stop")
    if arguments.action == "pin" and not (arguments.off or arguments.reason):
        parser.error("pin: expected --reason, which whoever wants to promote is told")
    registry = Registry.at(arguments.models, arguments.keys)
    try:
        return ACTIONS[arguments.action](registry, arguments)
    except (ValueError, OSError) as error:
        print(f"models: {error}", file=sys.stderr)
        return 1


def _keygen(registry: Registry, _: argparse.Namespace) -> int:
    public = generate_key(registry.keys)
    print(f"{public.parent}: a new key signs from now on; {public.name} is its public half")
    return 0


def _add(registry: Registry, arguments: argparse.Namespace) -> int:
    source = Source(
        arguments.detector,
        arguments.calibration,
        arguments.card,
        tuple(arguments.config),
        arguments.verdict,
        arguments.data,
        tuple(registry.find(parent) for parent in arguments.parent),
        arguments.note,
    )
    version, is_new = add_version(registry, source)
    state = registry.states.of(version.name)
    print(f"{version.name}: {'added as a candidate' if is_new else f'is there already, {state}'}")
    print(f"{version.manifest.detector.name}, SHA-256 {version.manifest.detector.sha256}")
    return 0


def _list(registry: Registry, _: argparse.Namespace) -> int:
    states = registry.states
    rows = []
    for name in registry.names:
        held = "pinned" if name in states.pinned else ""
        try:
            manifest = registry.read(name).manifest
        except RegistryError:
            rows.append([name, states.of(name), held, "damaged: see verify", "", ""])
            continue
        data = "" if manifest.data is None else manifest.data.name
        rows.append([name, states.of(name), held, manifest.detector.name, data, manifest.added_by])
    print(markdown_table(["version", "state", "", "detector", "data", "added by"], rows))
    return 0


def _show(registry: Registry, arguments: argparse.Namespace) -> int:
    name = registry.find(arguments.version)
    states, version = registry.states, registry.read(name)
    print(f"{version.manifest.to_json().decode()}state: {states.of(name)}")
    if name in states.pinned:
        print(f"pinned: {states.pinned[name]}")
    for change in states.history:
        if change.version == name:
            print(_line(change))
    return 0


def _line(change: Change) -> str:
    """Return one change as a line."""
    verdict = None if change.verdict is None else f"verdict {change.verdict[:12]}"
    without = None if change.without_gate is None else f"without the gate: {change.without_gate}"
    parts = (f"{change.at} {change.by}: {change.action} {change.version}", verdict, without, change.reason)
    return "; ".join(part for part in parts if part)


def _one_line(text: str) -> str:
    """Return a reason as the history holds it: one line of words."""
    words = " ".join(text.split())
    if not words:
        raise argparse.ArgumentTypeError("expected a reason in words, got blanks")
    return words


def _verify(registry: Registry, arguments: argparse.Namespace) -> int:
    names = [registry.find(arguments.version)] if arguments.version else registry.names
    faulty = 0
    for name in names:
        try:
            registry.verify(name)
            print(f"{name}: as it was signed")
        except RegistryError as error:
            faulty += 1
            print(f"{name}: {error}")
    served = registry.states.served
    if served is not None and served not in registry.names:
        faulty += 1
        print(f"{served}: is served, and its folder is not there")
    print(f"{counted(len(names), 'version')}, {faulty} not as signed; {served or 'none'} is served")
    return 1 if faulty else 0


def _promote(registry: Registry, arguments: argparse.Namespace) -> int:
    judge = (
        _without_gate(arguments.without_gate) if arguments.without_gate else _by_verdict(registry, arguments.verdict)
    )
    print(_line(registry.promote(registry.find(arguments.version), judge, reason=arguments.reason or "")))
    return 0


def _without_gate(reason: str) -> Judge:
    return lambda _served, _candidate: Grounds(without_gate=reason)


def _by_verdict(registry: Registry, given: Path | None) -> Judge:
    def judge(served: str | None, candidate: Version) -> Grounds:
        path = given or candidate.verdict
        if path is None:
            raise RegistryError(
                f"{candidate.name}: there is no verdict on it: --verdict names one, or --without-gate says why not"
            )
        path = path / VERDICT_FILE if path.is_dir() else path
        verdict, content = Verdict.load(path), path.read_bytes()
        try:
            before = None if served is None else _files(registry.read(served))
            check_promotion(verdict, served=before, candidate=_files(candidate))
        except ValueError as error:
            raise RegistryError(f"{candidate.name} is not promoted by {path}: {error}") from error
        return Grounds(verdict=content)

    return judge


def _files(version: Version) -> Files:
    return Files(version.name, version.manifest.detector.sha256, version.manifest.files.get(CALIBRATION_FILE))


def _rollback(registry: Registry, arguments: argparse.Namespace) -> int:
    print(_line(registry.rollback(reason=arguments.reason or "")))
    return 0


def _shadow(registry: Registry, arguments: argparse.Namespace) -> int:
    if arguments.stop:
        change = registry.stop_shadow(reason=arguments.reason or "")
    else:
        change = registry.shadow(registry.find(arguments.version), reason=arguments.reason or "")
    print(_line(change))
    return 0


def _pin(registry: Registry, arguments: argparse.Namespace) -> int:
    change = registry.unpin if arguments.off else registry.pin
    print(_line(change(registry.find(arguments.version), reason=arguments.reason or "")))
    return 0


def _retire(registry: Registry, arguments: argparse.Namespace) -> int:
    print(_line(registry.retire(registry.find(arguments.version), reason=arguments.reason or "")))
    return 0


def _compare(registry: Registry, arguments: argparse.Namespace) -> int:
    """Print the comparisons of the page's store, of one shadow or of all."""
    page, settings, stores = import_page(), import_page("settings"), import_page("store")
    wanted = None if arguments.version is None else registry.find(arguments.version)
    try:
        store = page.open_store(settings.Settings.from_environ())
    except stores.StoreError as error:
        raise RegistryError(str(error)) from error
    try:
        comparisons = store.shadow.comparisons(wanted)
    except stores.StoreUnavailable as error:
        raise RegistryError(str(error)) from error
    finally:
        store.close()
    if not comparisons:
        print("no answers of a shadow are stored (FRACTURE_DATA_DIR, FRACTURE_DATABASE_URL)")
    for comparison in comparisons:
        print("\n".join(comparison.lines()), end="\n\n")
    return 0


ACTIONS = {
    "keygen": _keygen,
    "add": _add,
    "list": _list,
    "show": _show,
    "verify": _verify,
    "promote": _promote,
    "rollback": _rollback,
    "shadow": _shadow,
    "pin": _pin,
    "retire": _retire,
    "compare": _compare,
}
