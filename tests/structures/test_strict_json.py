"""Errors of a file that is read name the field and the value."""

from dataclasses import dataclass

import msgspec
import pytest

from fracture_det.structures.strict_json import convert_json, parse_json


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    slope: float
    knots: tuple[tuple[float, float], ...] = ()


class Outer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    title: str
    inner: Inner
    scores: dict[str, float] = {}
    size: int | None = None

    def __post_init__(self):
        if self.size == 0:
            raise ValueError(f"size: expected at least 1, got {self.size}")


GOOD = {"title": "t", "inner": {"slope": 1}}


def test_a_good_one_is_read_and_whole_numbers_are_numbers():
    read = convert_json(parse_json('{"title": "t", "inner": {"slope": 1, "knots": [[0, 1]]}}'), Outer)
    assert read == Outer("t", Inner(1.0, ((0.0, 1.0),)))
    assert isinstance(read.inner.slope, float)


# content, message
BROKEN = (
    ({**GOOD, "title": 3}, "title: expected a text, got 3"),
    ({**GOOD, "inner": []}, "inner: expected an object, got []"),
    ({**GOOD, "inner": {"slope": "1"}}, "inner.slope: expected a number, got '1'"),
    ({**GOOD, "inner": {"slope": True}}, "inner.slope: expected a number, got True"),
    ({**GOOD, "inner": {"slope": 1, "knots": [[0, 1], [1, None]]}}, "inner.knots[1][1]: expected a number, got None"),
    ({**GOOD, "inner": {"slope": 1, "knots": [[0]]}}, "inner.knots[0]: expected a list of length 2, got [0]"),
    ({**GOOD, "inner": {"slope": 1, "colour": 2}}, "inner.colour: unknown, got 2"),
    ({**GOOD, "colour": "red"}, "colour: unknown, got 'red'"),
    ({"title": "t"}, "inner: missing"),
    ({**GOOD, "inner": {}}, "inner.slope: missing"),
    ({**GOOD, "scores": {"a": 0.5, "b c": "x"}}, "scores.b c: expected a number, got 'x'"),
    ({**GOOD, "size": 1.5}, "size: expected a whole number or null, got 1.5"),
    ({**GOOD, "size": 0}, "size: expected at least 1, got 0"),
    ([GOOD], "the file: expected an object, got [{'title': 't', 'inner': {'slope': 1}}]"),
)  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BROKEN)
def test_what_is_wrong_is_named_with_its_value(content, message):
    with pytest.raises(ValueError, match=r".") as caught:
        convert_json(content, Outer)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["{", "", "nonsense", '{"score": NaN}', b"\xff"])
def test_what_is_not_json(text):
    with pytest.raises(ValueError, match=r"^not JSON: "):
        parse_json(text)


def test_a_dataclass_passes_over_what_it_does_not_know():
    @dataclass(frozen=True)
    class Known:
        title: str

    assert convert_json({"title": "t", "later": 1}, Known) == Known("t")
