"""Tables as spreadsheets save them: delimiters, encodings, blanks, and what cannot be told is said."""

from __future__ import annotations

import pytest

from fracture_det.data.metadata import read_metadata
from fracture_det.data.splits import read_split
from fracture_det.data.tables import MetadataError, read_table

ROWS = [
    ["file_name", "anatomy", "note", "age"],
    ["a.png", "poignet", "fracture déplacée", "61,5"],
    ["b.png", "épaule", "", "7"],
]
WESTERN = [ROWS[0], *[[*row[:3], row[3].replace(",", ".")] for row in ROWS[1:]]]


def written(tmp_path, rows, delimiter=",", encoding="utf-8", start=""):
    text = start + "".join(delimiter.join(row) + "\r\n" for row in rows)
    (tmp_path / "table.csv").write_bytes(text.encode(encoding))
    return tmp_path / "table.csv"


def details(table):
    return [(problem.kind, problem.detail) for problem in table.problems]


class TestDelimiters:
    @pytest.mark.parametrize(
        ("delimiter", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")], ids=["semicolon", "tab", "bar"]
    )
    def test_the_delimiter_is_found_and_reported_and_decimal_commas_are_values(self, tmp_path, delimiter, name):
        table = read_table(written(tmp_path, ROWS, delimiter))
        assert table.rows == [dict(zip(ROWS[0], row, strict=True)) for row in ROWS[1:]]
        assert details(table) == [("metadata_dialect", f"read as utf-8, separated by {name}")]

    def test_utf_8_with_commas_needs_no_report(self, tmp_path):
        for encoding in ("utf-8", "utf-8-sig"):
            table = read_table(written(tmp_path, WESTERN, encoding=encoding))
            assert (table.key, table.problems) == ("file_name", [])
            assert table.rows[1]["anatomy"] == "épaule"

    def test_a_line_for_excel_names_the_delimiter(self, tmp_path):
        assert read_table(written(tmp_path, ROWS, ";", start="sep=;\r\n")).rows[0]["age"] == "61,5"

    def test_semicolons_and_quotes_inside_of_values(self, tmp_path):
        rows = [["file_name", "note"], ["a.png", '"left; ""old"""'], ["b.png", "1;2"]]
        assert [row["note"] for row in read_table(written(tmp_path, rows)).rows] == ['left; "old"', "1;2"]

    def test_a_value_that_a_decimal_comma_has_moved_is_not_used(self, tmp_path):
        rows = [["file_name", "age", "patient"], ["a.png", "61,5", "p1"], ["b.png", "7", "p2"]]
        table = read_table(written(tmp_path, rows))
        assert [row["file_name"] for row in table.rows] == ["b.png"]
        [(kind, detail)] = details(table)
        assert kind == "metadata_row_too_long"
        assert detail.startswith("line 2 has 4 fields for 3 columns")

    def test_empty_lines_and_empty_columns_at_the_end_do_not_matter(self, tmp_path):
        rows = [[""], ["file_name", "anatomy", "", ""], ["a.png", "hand", "", ""], ["", "", "", ""], ["b.png"]]
        assert read_table(written(tmp_path, rows, ";")).rows == [
            {"file_name": "a.png", "anatomy": "hand"},
            {"file_name": "b.png", "anatomy": ""},
        ]


class TestEncodings:
    @pytest.mark.parametrize(
        ("encoding", "said"),
        [
            ("latin-1", "latin-1"),
            ("utf-16", "utf-16"),
            ("utf-16-le", "utf-16-le"),
            ("utf-16-be", "utf-16-be"),
            ("utf-32", "utf-32"),
        ],
    )
    def test_an_encoding_that_is_certain_is_read_and_reported(self, tmp_path, encoding, said):
        table = read_table(written(tmp_path, ROWS, ";", encoding))
        assert [row["anatomy"] for row in table.rows] == ["poignet", "épaule"]
        assert details(table) == [("metadata_dialect", f"read as {said}, separated by semicolons")]

    def test_what_only_windows_1252_has(self, tmp_path):
        rows = [
            ["file_name", "note"],
            ["a.png", "patient\u2019s hand \u2013 12 €, Œuvre, 3 cm², 5°"],
            ["b.png", "Größe: füßig"],
        ]
        table = read_table(written(tmp_path, rows, "\t", "cp1252"))
        assert [row["note"] for row in table.rows] == [rows[1][1], rows[2][1]]
        assert details(table) == [("metadata_dialect", "read as cp1252, separated by tabs")]

    @pytest.mark.parametrize(
        ("text", "encoding"),
        [
            ("рука", "cp1251"),
            ("ręka, złamanie", "cp1250"),
            ("métacarpe", "mac-roman"),
            ("métacarpe", "cp437"),
            ("手", "gbk"),
            ("骨折", "shift-jis"),
            ("χέρι", "iso8859-7"),
        ],
    )
    def test_an_encoding_that_cannot_be_told_is_said_with_its_line(self, tmp_path, text, encoding):
        path = written(tmp_path, [["file_name", "note"], ["a.png", "x"], ["b.png", text]], ";", encoding)
        with pytest.raises(MetadataError, match=r"table\.csv: line 3 is not UTF-8.*save the table as UTF-8"):
            read_table(path)


class TestColumns:
    @pytest.mark.parametrize("name", [" file_name ", "File Name", "FILE-NAME", '"image_id"', "Image ID", "Filename"])
    def test_the_key_column_is_known_with_other_blanks_and_capitals(self, tmp_path, name):
        table = read_table(written(tmp_path, [[name, "anatomy"], [" a.png ", " hand "]]))
        assert table.rows == [{table.key: "a.png", "anatomy": "hand"}]

    def test_the_columns_that_are_asked_for_too(self, tmp_path):
        rows = [["Image ID", " Body Part", "Patient ID "], ["a.png", "hand", "p1"]]
        metadata = read_metadata(
            written(tmp_path, rows, ";"), ["a.png"], anatomy_columns=["body_part"], group_column="Patient ID"
        )
        assert (metadata.anatomies, metadata.patients) == ({"a.png": "hand"}, {"a.png": "p1"})
        assert [problem.kind for problem in metadata.problems] == ["metadata_dialect"]

    def test_flags_with_decimals_are_flags(self, tmp_path):
        rows = [["file_name", "hand", "leg"], ["a.png", "1,0", "0,0"], ["b.png", "0.0", "1.0"]]
        path = written(tmp_path, rows, ";")
        assert read_metadata(path, ["a.png", "b.png"], anatomy_columns=["hand", "leg"]).anatomies == {
            "a.png": "hand",
            "b.png": "leg",
        }

    def test_two_columns_of_one_name_are_refused(self, tmp_path):
        with pytest.raises(MetadataError, match="several columns are called 'patient'"):
            read_table(written(tmp_path, [["file_name", "patient", "patient"], ["a.png", "1", "2"]]))

    def test_a_table_without_images_names_its_columns(self, tmp_path):
        with pytest.raises(MetadataError, match=r"expected one of the columns file_name, .*, got id, anatomy$"):
            read_table(written(tmp_path, [["id", "anatomy"], ["1", "hand"]], ";"))

    def test_a_folder_or_nothing_in_its_place(self, tmp_path):
        for path in (tmp_path, tmp_path / "none.csv"):
            with pytest.raises(MetadataError, match="cannot be read"):
                read_table(path)


class TestSplits:
    def test_a_split_is_read_from_such_tables_too(self, tmp_path):
        path = written(tmp_path, [["File Name", "Split"], ["a.png", "train"], ["b.png", "test"]], ";", "utf-16")
        assignment, _, problems = read_split(path, ["a.png", "b.png"])
        assert assignment == {"a.png": "train", "b.png": "test"}
        assert [problem.detail for problem in problems] == ["read as utf-16, separated by semicolons"]

    def test_a_row_that_is_too_long_is_refused_there(self, tmp_path):
        path = written(tmp_path, [["file_name", "split"], ["a.png", "1,5", "test"]])
        with pytest.raises(MetadataError, match="line 2 has 4 fields for 2 columns"):
            read_split(path, ["a.png"])
