"""What dcmtk makes of presentation states and reports: it draws no graphics of its own, but reads and applies them."""

import subprocess

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from tests.pacs.programs import program
from tests.pacs.test_outputs import FEEDBACK, LIKELY, NONE_SEEN, REFUSED, answer, image
from webapp.pacs.outputs.presentation_state import presentation_state
from webapp.pacs.outputs.structured_report import structured_report

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
# How the grey of a film comes about; the state must not change it.
FILMS = {
    "a window": {},
    "another window": {"WindowCenter": 60, "WindowWidth": 100},
    "no window": {"WindowCenter": None, "WindowWidth": None},
    "white is zero": {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
}


def run(*arguments):
    done = subprocess.run(
        [program(arguments[0]), *map(str, arguments[1:])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rendered(path):
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


@pytest.fixture(params=FILMS)
def said(request, tmp_path):
    return answer(image(tmp_path, 1, LIKELY, **FILMS[request.param]))


@pytest.fixture
def state(said, tmp_path):
    path = tmp_path / "state.dcm"
    path.write_bytes(presentation_state(said, said.images[0], 1)[1])
    return path


def test_a_film_is_rendered_with_its_state_as_without_and_the_box_is_around_what_is_bright(said, state, tmp_path):
    run("dcmp2pgm", "-p", state, "+S", tmp_path / "read.dcm", tmp_path / "1.dcm", tmp_path / "with.pgm")
    run("dcmp2pgm", tmp_path / "1.dcm", tmp_path / "without.pgm")
    picture = rendered(tmp_path / "with.pgm")
    assert (picture == rendered(tmp_path / "without.pgm")).all()
    # The state as dcmtk has read it, written anew by dcmtk.
    [annotation] = dcmread(tmp_path / "read.dcm").GraphicAnnotationSequence
    drawn = [np.asarray(graphic.GraphicData).reshape(-1, 2) for graphic in annotation.GraphicObjectSequence]
    assert {graphic.GraphicAnnotationUnits for graphic in annotation.GraphicObjectSequence} == {"PIXEL"}
    assert len(drawn) == len(said.images[0].result.boxes)
    x0, y0, x1, y1 = (int(side) for side in (*drawn[0].min(axis=0), *drawn[0].max(axis=0)))
    inside = np.zeros(picture.shape, bool)
    inside[y0:y1, x0:x1] = True
    assert len(np.unique(picture[inside])) == 1
    assert abs(picture[inside].mean() - picture[~inside].mean()) > 100
    texts = [text.UnformattedTextValue for text in annotation.TextObjectSequence]
    assert texts[0].startswith("Research use only, not for diagnosis. Fracture likely")
    assert texts[1:] == ["1 likely 0.90", "2 possible 0.31"]


def test_a_print_job_takes_the_state(state, tmp_path):
    config = tmp_path / "print.cfg"
    (tmp_path / "jobs").mkdir()
    config.write_text(
        f"[[GENERAL]]\n[DATABASE]\nDirectory = {tmp_path / 'jobs'}\n"
        "[[COMMUNICATION]]\n[P]\nAetitle = P\nDescription = P\nHostname = localhost\nPort = 1\nType = PRINTER\n"
        "DisplayFormat = 1,1\nFilmSizeID = 8INX10IN\n"
    )
    run("dcmpsprt", "-c", config, "+p", state, tmp_path / "1.dcm")
    [printed] = (tmp_path / "jobs").glob("HG_*.dcm")
    assert np.ptp(dcmread(printed).pixel_array.astype(int)) > 1000  # of 12 bits


@pytest.mark.parametrize("version", [1, 2])
def test_dsrdump_reads_the_report_without_leniency(tmp_path, version):
    feedback = FEEDBACK if version > 1 else None
    images = (image(tmp_path, 1, LIKELY, feedback), image(tmp_path, 2, NONE_SEEN), image(tmp_path, 3, REFUSED))
    path = tmp_path / "report.dcm"
    path.write_bytes(structured_report(answer(*images, version=version))[1])
    text = run("dsrdump", "+U8", "+Pl", path)
    assert "Comprehensive SR Document" in text
    assert "#PID-1" in text
    assert '(125605004,SCT,"Fracture of bone")' in text
    assert "20/30,60/30,60/50,20/50,20/30" in text
    assert '"Certainty of Finding")="93.0" (%,UCUM,"Percent")' in text
    assert '"Algorithm Parameters")="weights SHA-256 ' + "ab" * 32 in text
    assert "It looks like a document." in text
    assert ("anna" in text) == (version > 1)
