"""The card of a snapshot of readers' feedback: what it holds, whose answers, what was left out, and its hash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fracture_det.data.records import Dataset
from fracture_det.data.splits import SPLITS, count_split
from fracture_det.structures.markdown_table import markdown_table
from fracture_det.structures.readings import ONE_READER
from fracture_det.structures.wording import counted

TO_FILL_IN = "TO BE FILLED IN: who owns these radiographs, who agreed to their use, for what, and until when."
RULE = (
    "The truth is what an adjudicator has settled; else what all readers agree on, each box being the mean of theirs; "
    "else what the only reader says. Where readers disagree and nobody has settled it, the radiograph is left out. The "
    "store keeps the latest reading of each reader. Several results may show the same picture, to the byte:"
)


@dataclass(frozen=True)
class Facts:
    """What a card says.

    splits: file name -> split. about: radiograph -> its columns of metadata.csv. repeated: radiographs of one picture.
    left_out: (radiograph, reason). left: radiograph of the version before -> why it is not in this one. joined:
    sentences about groups that are one.
    """

    name: str
    sha256: str
    previous: str | None
    dataset: Dataset
    splits: Mapping[str, str]
    about: Mapping[str, Mapping[str, str]]
    repeated: Sequence[Sequence[str]]
    left_out: Sequence[tuple[str, str]]
    left: Mapping[str, str]
    joined: Sequence[str]
    note: str
    command: str


def card(facts: Facts) -> str:
    """Return the card as Markdown."""
    parts = [
        f"# Readers' feedback, {facts.name}",
        f"{counted(len(facts.dataset), 'radiograph')} with what readers said of a detector's boxes: right boxes and "
        "drawn fractures are the truth, wrong boxes are left out. Research use only.",
        f"    {facts.command}",
        f"SHA-256 {facts.sha256}, over the hashes that `snapshot.json` lists. `fracture-det snapshot --verify` checks "
        "it.",
        *_counts(facts),
        *_people(facts),
        *_agreement(facts),
        *_left_out(facts),
        "## Licence and consent",
        facts.note or TO_FILL_IN,
    ]
    return "\n\n".join(parts) + "\n"


def _counts(facts: Facts) -> list[str]:
    counts = count_split(facts.dataset, facts.splits)
    columns = ("images", "fractured", "healthy", "boxes", "groups")
    rows = [[split, *(f"{counts[split][column]:,}" for column in columns)] for split in SPLITS]
    parts = ["## What it holds", markdown_table(["split", "radiographs", *columns[1:]], rows, "-rrrrr")]
    empty = [split for split in SPLITS if not counts[split]["images"]]
    if empty:
        parts.append(
            f"**No radiograph yet: {', '.join(empty)}.** Groups are divided by their hash, not by their number."
        )
    classes: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for split in SPLITS:
        classes.update(counts[split]["classes"])
        types.update({name: count["boxes"] for name, count in counts[split]["types"].items()})
    n_boxes = sum(classes.values())
    typed = [[name, f"{n:,}"] for name, n in types.most_common()]
    typed.append(["unknown", f"{n_boxes - sum(types.values()):,}"])
    parts.append(markdown_table(["class", "boxes"], [[name, f"{n:,}"] for name, n in classes.most_common()], "-r"))
    parts.append(markdown_table(["type of fracture", "boxes"], typed, "-r"))
    return parts


def _people(facts: Facts) -> list[str]:
    times = sorted(about["updated_at"] for about in facts.about.values() if about.get("updated_at"))
    parts = ["## Who judged what"]
    if times:
        parts.append(f"Feedback from {times[0]} to {times[-1]}.")
    readers = Counter(name for about in facts.about.values() for name in about.get("author", "").split("; "))
    rows = [[name or "not stated", f"{n:,}"] for name, n in readers.most_common()]
    parts.append(markdown_table(["reader", "radiographs"], rows, "-r"))
    for title, columns in (
        ("whose word the truth is", ("truth",)),
        ("detector whose boxes were judged", ("model", "weights")),
        ("what that detector had found", ("finding",)),
    ):
        unstated = ONE_READER if columns == ("truth",) else "not stated"
        found = Counter(
            ", ".join(about.get(column, "") or unstated for column in columns) for about in facts.about.values()
        )
        parts.append(
            markdown_table([title, "radiographs"], [[name, f"{n:,}"] for name, n in found.most_common()], "-r")
        )
    return parts


def _agreement(facts: Facts) -> list[str]:
    fractured = {record.file_name.removesuffix(".png"): record.fractured for record in facts.dataset}
    divided = [names for names in facts.repeated if len({fractured[name] for name in names}) > 1]
    parts = ["## Agreement between readers", RULE]
    if facts.repeated:
        n, same = len(facts.repeated), len(facts.repeated) - len(divided)
        pictures = counted(n, "picture was judged in several results", "pictures were judged in several results")
        parts.append(f"{pictures}; whether there is a fracture, they agree on {same} of {n}.")
        parts += [f"- not on {', '.join(names)}" for names in divided]
    else:
        parts.append("No picture was judged in several results.")
    return parts


def _left_out(facts: Facts) -> list[str]:
    parts = ["## What is not in it"]
    if facts.left_out:
        parts.append(markdown_table(["left out", "why"], facts.left_out))
    else:
        parts.append("Nothing with feedback was left out.")
    if facts.previous is None:
        parts.append("It is the first version.")
    elif facts.left:
        left = counted(len(facts.left), "radiograph")
        parts.append(f"Since {facts.previous}, {left} left:")
        parts.append(markdown_table(["radiograph", "why"], list(facts.left.items())))
    else:
        parts.append(f"Since {facts.previous}, none left.")
    parts += [f"- {sentence}" for sentence in facts.joined]
    return parts
