import pytest
from markdown_it import MarkdownIt

from fracture_det.structures.markdown_table import markdown_table


def test_a_table_with_its_columns_set_left_and_right():
    text = markdown_table(["name", "n", "note"], [["a", "1", ""], ["b", "20", "x"]], "lr")
    assert text.splitlines() == ["| name | n | note |", "| :--- | ---: | --- |", "| a | 1 |  |", "| b | 20 | x |"]


def test_a_cell_cannot_break_the_table():
    text = markdown_table(["a|b"], [["c|d"], ["already\\|escaped"], ["two\nlines"]])
    shown = MarkdownIt("commonmark").enable("table").render(text)
    assert [cell in shown for cell in ("a|b", "c|d", "already|escaped", "two lines")] == [True] * 4
    assert shown.count("<td>") == 3
    assert shown.count("<th>") == 1


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"expected 2 cells, got 1: \['c'\]"):
        markdown_table(["a", "b"], [["c"]])
