"""Bad and odd uploads, some hundreds here and as many as wished by `python -m tests.webapp.bad_files`."""

import pytest
from PIL import Image

from tests.webapp.bad_files import CREATED, KINDS, bad_file, main

# Pillow warns of much that is odd; a server prints it.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
TURNS = 2


@pytest.mark.parametrize("turn", range(TURNS))
def test_every_bad_file_gets_a_result_or_a_sentence_and_never_a_crash(post, turn):
    for number in range(turn * len(KINDS), (turn + 1) * len(KINDS)):
        case = bad_file(number)
        answer = post(case.data)
        assert answer.status_code in case.allowed, f"{number}, {case.kind}: {answer.json}"
        if answer.status_code == CREATED:
            assert answer.json["finding"]["level"] in ("likely", "possible", "none seen")
        else:
            assert (answer.json["ok"], answer.json["status"]) == (False, answer.status_code), case.kind
            assert answer.json["error"].endswith(".")
            assert "finding" not in answer.json


def test_the_same_number_is_the_same_file():
    first, *rest = [[bad_file(number, seed=seed).data for number in range(len(KINDS))] for seed in (1, 1, 2)]
    assert first == rest[0] != rest[1]


def test_pillow_is_never_asked_for_another_format(post, monkeypatch):
    Image.init()
    asked = []
    for kind, (opens, accepts) in list(Image.OPEN.items()):

        def spy(*given, kind=kind, opens=opens):
            asked.append(kind)
            return opens(*given)

        monkeypatch.setitem(Image.OPEN, kind, (spy, accepts))
    for number in range(len(KINDS)):
        post(bad_file(number).data)
    assert set(asked) == {"JPEG", "PNG"}


def test_the_command_tells_a_sound_server_from_one_that_responds_wrongly(capsys, monkeypatch):
    assert main(["--count", str(len(KINDS))]) == 0
    said = capsys.readouterr().out
    assert "every answer is allowed, no connection was lost, the worker is the same" in said
    make, _ = KINDS["other: nothing"]
    monkeypatch.setitem(KINDS, "other: nothing", (make, frozenset({CREATED})))
    assert main(["--count", str(len(KINDS))]) == 1
    assert "other: nothing: 422, allowed [201]" in capsys.readouterr().out
