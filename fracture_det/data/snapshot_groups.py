"""The split that each picture of readers' feedback has for life: groups over all versions of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fracture_det.data.grouping import group_files
from fracture_det.data.splits import LEFT_OUT, SPLITS, split_by_hash

# The kinds of keys, the strongest first: what a new group is named by, and divided by.
KINDS = ("patient", "study", "picture", "upload")
JOINED = "its group has pictures in two splits; only those that were in {split} before stay there"


def key(kind: str, value: str) -> str:
    """Return what two radiographs share that belong to one group, such as `picture:SHA-256`."""
    if kind not in KINDS:
        raise ValueError(f"key: expected one of {', '.join(KINDS)}, got {kind!r}")
    return f"{kind}:{value}"


@dataclass(frozen=True)
class Group:
    """Pictures that are never divided between splits, with those of earlier versions, deleted ones too.

    split: train, val or test. joined: whether groups of different splits turned out to be this one. keys: what its
    pictures share; `given`: key of each picture -> the split that it has for life, "none" where it is left out.
    """

    name: str
    split: str
    joined: bool
    keys: frozenset[str]
    given: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return it for a JSON file, in one form only."""
        return {
            "name": self.name,
            "split": self.split,
            "joined": self.joined,
            "keys": sorted(self.keys),
            "given": dict(sorted(self.given.items())),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Group:
        """Return the group that `to_json` gave. Raises KeyError or TypeError."""
        keys = frozenset(content["keys"])
        return cls(content["name"], content["split"], bool(content["joined"]), keys, dict(content["given"]))

    def place(self, picture: str) -> tuple[Group, str]:
        """Return the group with a picture of it, and the split of that picture: the group's, or "none"."""
        given = self.given.get(picture)
        if given is None:
            given = LEFT_OUT if self.joined else self.split
            return replace(self, given={**self.given, picture: given}), given
        return self, given if given == self.split else LEFT_OUT


def grow(
    groups: Sequence[Group],
    pictures: Iterable[frozenset[str]],
    *,
    copies: Iterable[tuple[str, str]] = (),
    fractions: Sequence[float],
) -> tuple[list[Group], list[str]]:
    """Return the groups with those of new pictures, and a sentence for each time that groups of several splits joined.

    pictures: the keys of each. copies: keys of pictures that show the same. fractions: of train, val and test, for new
    groups, which the SHA-256 of their name divides, so that no group ever moves as others come. Groups that join have
    the last of their splits in the order train, val, test. The names of the result are sorted.
    """
    clusters = [*(sorted(group.keys) for group in groups), *map(sorted, pictures)]
    root_of = group_files({name for cluster in clusters for name in cluster}, copies=[*clusters, *copies])
    members: dict[str, set[str]] = {}
    for name, root in root_of.items():
        members.setdefault(root, set()).add(name)
    parts: dict[str, list[Group]] = {}
    for group in groups:
        parts.setdefault(root_of[min(group.keys)], []).append(group)
    grown, sentences = [], []
    for root, keys in members.items():
        old = sorted(parts.get(root, []), key=lambda group: group.name)
        if not old:
            name = min(keys, key=lambda name: (KINDS.index(name.partition(":")[0]), name))
            grown.append(Group(name, split_by_hash(name, fractions), False, frozenset(keys), {}))
            continue
        splits = sorted({group.split for group in old}, key=SPLITS.index)
        if len(splits) > 1:
            names = " and ".join(f"{group.name} ({group.split})" for group in old)
            sentences.append(f"{names} are one group: {splits[-1]} from now on")
        given = {picture: split for group in old for picture, split in group.given.items()}
        joined = len(splits) > 1 or any(group.joined for group in old)
        grown.append(Group(old[0].name, splits[-1], joined, frozenset(keys), given))
    return sorted(grown, key=lambda group: group.name), sorted(sentences)
