"""Encodings, numbers and ids as tools write them: read with a note where the meaning is clear, else refused."""

from __future__ import annotations

import math

import pytest

from fracture_det.data.annotation_formats.text import (
    decode_text,
    one_note_per_kind,
    parse_id,
    parse_number,
    parse_whole_number,
    read_json,
    read_xml,
    show,
)
from fracture_det.data.annotations import AnnotationError


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_unicode_encoding_is_read_and_noted(encoding):
    text, notes = decode_text("0 0.5 0.5\r\n".encode(encoding))

    assert text == "0 0.5 0.5\r\n"
    assert [kind for kind, _ in notes] == ["encoding" if encoding.endswith("e") else "byte_order_mark"]


@pytest.mark.parametrize("data", [b"", b"0 0.5", "Fraktur ä 骨折".encode()])
def test_plain_utf8_is_read_without_a_note(data):
    assert decode_text(data) == (data.decode(), ())


def test_bytes_of_no_unicode_encoding_are_refused_in_words():
    with pytest.raises(ValueError, match=r"not UTF-8 \(byte 0xe4 at 4\); save it as UTF-8"):
        decode_text("Knöchel".encode("latin-1").replace(b"\xf6", b"oo\xe4"))


@pytest.mark.parametrize(
    ("value", "number", "kinds"),
    [(12, 12.0, []), (1.5, 1.5, []), (" 12 ", 12.0, []), ("12.0", 12.0, []), ("1e-3", 0.001, []),
     ("0,35", 0.35, ["decimal_comma"]), ("12,5", 12.5, ["decimal_comma"]), ("0,125", 0.125, ["decimal_comma"]),
     ("3,5e-01", 0.35, ["decimal_comma"]), ("1e999", math.inf, []), ("-inf", -math.inf, [])],
)  # fmt: skip
def test_numbers_in_each_way_of_writing(value, number, kinds):
    parsed, notes = parse_number(value)

    assert parsed == number
    assert [kind for kind, _ in notes] == kinds


@pytest.mark.parametrize("value", [None, True, [], {}, "", "a", "1,234", "1,234,567", "1_0", "1.2.3", 10**400])
def test_what_is_no_number_or_has_two_meanings_is_refused_in_words(value):
    with pytest.raises(ValueError, match=r"^expected a number, got "):
        parse_number(value)


def test_whole_numbers():
    assert parse_whole_number(12.0) == (12, ())
    assert parse_whole_number("12") == (12, ())
    assert parse_whole_number("0.0")[0] == 0
    assert [kind for kind, _ in parse_whole_number("1.000e+00")[1]] == ["whole_number"]
    for value in (1.5, math.inf, math.nan, 1e300, "inf", "0,5"):
        with pytest.raises(ValueError, match="expected a whole number"):
            parse_whole_number(value)


def test_text_and_number_are_one_id():
    assert [parse_id(value)[0] for value in (0, 0.0, "0", "-3", "00", "a", "1.0")] == [0, 0, 0, -3, "00", "a", "1.0"]
    assert [kind for kind, _ in parse_id("7")[1]] == ["id_as_text"]
    for value in (None, "", True, [], {}, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"missing|expected a (whole )?number or a text"):
            parse_id(value)


def test_json_with_a_mark_is_read_and_broken_json_is_an_annotation_error():
    assert read_json("a.json", b'\xef\xbb\xbf{"a": NaN}')[1][0][0] == "byte_order_mark"
    for data in (b"{", b"[" * 100_000, b"\xff\xfe\x00", b'{"images": [1], "images": []}', b"9" * 5000):
        with pytest.raises(AnnotationError, match=r"a\.json: json: "):
            read_json("a.json", data)


def test_xml_is_read_without_namespaces_and_with_a_wrong_declaration():
    root, notes = read_xml("a.xml", b'<?xml version="1.0" encoding="utf-16"?><a xmlns="urn:x"><b/></a>')

    assert [element.tag for element in root.iter()] == ["a", "b"]
    assert [kind for kind, _ in notes] == ["encoding"]
    assert read_xml("a.xml", '<?xml version="1.0" encoding="utf-16"?><a/>'.encode("utf-16"))[1] == ()
    for data in (b"", b"<a>", b'<?xml version="1.0" encoding="utf-99"?><a>', b"\xff\xff"):
        with pytest.raises(AnnotationError, match=r"a\.xml: xml: "):
            read_xml("a.xml", data)


def test_notes_of_one_kind_become_one():
    notes = [("a", "first"), ("b", "other"), ("a", "second"), ("a", "third")]

    assert one_note_per_kind(notes) == (("a", "first; and 2 more"), ("b", "other"))


def test_a_value_in_a_message_is_short():
    assert show("x" * 500).endswith("...")
    assert show(10**5000) == "a int"
    assert (show(None), show(True), show("a")) == ("null", "true", "'a'")
