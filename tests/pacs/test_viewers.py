"""What viewers that were written elsewhere show of the answers: Orthanc's Web Viewer, and OFFIS' DICOMscope."""

import base64
import io
import json
import os
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from tests.pacs.dicomscope import shown_by_dicomscope
from tests.pacs.films import dicom_object, example_pixels, write
from tests.pacs.programs import ORTHANC, PLUGINS, MllpServer, Orthanc, RunningNode, program, storescu, wait_for
from tests.pacs.test_whole import CONFIG
from tests.paths import ROOT
from tests.webapp.browser import chromium, open_browser, open_page

pytestmark = pytest.mark.slow

WEB_VIEWER = "libOrthancWebViewer.so"


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """A held-out, fractured film in Orthanc with the node's answer: `orthanc`, `film` (a path), `answers` (IDs)."""
    folder = tmp_path_factory.mktemp("answered")
    program("Orthanc"), program("storescu")
    mllp = MllpServer()
    settings = json.dumps({**ORTHANC, "StableAge": 1})
    orthanc = Orthanc(folder / "orthanc", configuration=settings, plugins=[WEB_VIEWER])
    node = RunningNode(folder / "node", CONFIG.format(archive=orthanc.port, ris=mllp.port)).start()
    film = write(dicom_object(example_pixels()), folder / "film.dcm")
    orthanc.post("/instances", film.read_bytes())
    storescu(node.port, [film], calling="STORESCU")
    study = dcmread(film).StudyInstanceUID
    wait_for(lambda: len(orthanc.answers().get(study, ())) == 3, "the answer")
    node.stop()
    yield SimpleNamespace(orthanc=orthanc, film=film, answers=dict(orthanc.answers()[study]))
    orthanc.close()
    mllp.close()


def picture_to(name):
    """Return where a picture for the documents goes, or None."""
    return ROOT / os.environ["FRACTURE_SHOTS"] / name if "FRACTURE_SHOTS" in os.environ else None


def is_amber(image):
    """Return where an RGB image has the colour of boxes: (H, W) bool."""
    red, green, blue = (image[..., channel].astype(int) for channel in range(3))
    return (red > 200) & (green > 120) & (green < 210) & (blue < 90)


@pytest.fixture(scope="module")
def web_viewer():
    """Skip where there is none, before anything is started."""
    if not (PLUGINS / WEB_VIEWER).exists():
        pytest.skip(f"no {WEB_VIEWER} here; make test-deps installs it")
    if chromium() is None:
        pytest.skip("no chromium here; make test-deps installs it")


def test_the_web_viewer_of_orthanc_shows_the_boxes_of_the_secondary_capture(web_viewer, answered):
    orthanc, instance = answered.orthanc, answered.answers["OT"]
    series = orthanc.get(f"/instances/{instance}/series")["ID"]
    wait_for(lambda: orthanc.get(f"/series/{series}")["IsStable"], "a series that is complete")
    with open_browser() as browser, open_page(browser, width=1000, height=800) as (page, witness):
        page.goto(f"http://127.0.0.1:{orthanc.http_port}/web-viewer/app/viewer.html?series={series}")
        page.get_by_text("Zoom: ").filter(visible=True).first.wait_for()
        page.wait_for_load_state("networkidle")
        drawn = page.locator("#dicomImage canvas").evaluate("canvas => canvas.toDataURL('image/png')")
        if place := picture_to("pacs.png"):
            page.screenshot(path=place)
    assert witness.complaints == []
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.split(",")[1]))).convert("RGB"))
    # The viewer fits the image into its canvas, in the middle.
    capture = dcmread(io.BytesIO(orthanc.file(instance))).pixel_array
    height, width = shown.shape[:2]
    scale = min(height / capture.shape[0], width / capture.shape[1])
    shift = [(width - scale * capture.shape[1]) / 2, (height - scale * capture.shape[0]) / 2]
    expected = cv2.warpAffine(capture, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), (width, height))
    there, wanted = is_amber(shown), is_amber(expected)
    assert wanted.sum() > 1000
    assert (there & wanted).sum() > 0.8 * (there | wanted).sum()


def boxes_of(report):
    """Return the boxes of a structured report from top to bottom: (N, 4) x0, y0, x1, y1 in pixels of the film."""
    items, found = [report], []
    while items:
        item = items.pop()
        items.extend(item.get("ContentSequence", ()))
        if item.get("ValueType") == "SCOORD":
            points = np.reshape(item.GraphicData, (-1, 2))
            found.append([*points.min(0), *points.max(0)])
    return np.array(sorted(found, key=lambda box: box[1]))


def rectangles_in(mask):
    """Return the rectangles that a mask (H, W) outlines, from top to bottom: (N, 4) x0, y0, x1, y1, amid the line."""
    found = []
    for x, y, width, height, _ in cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)[2][1:]:
        part = mask[y : y + height, x : x + width]
        sides = [part[0], part[-1], part[:, 0], part[:, -1]]
        if min(width, height) > 15 and all(side.all() for side in sides):
            line = (int(np.argmin(part[height // 2])) - 1) / 2
            found.append([x + line, y + line, x + width - 1 - line, y + height - 1 - line])
    return np.array(sorted(found, key=lambda box: box[1]), dtype=float).reshape(-1, 4)


def placed(film, window):
    """Return how pixels of a film (H, W) are scaled and shifted to where a window (H, W) has them: (2, 3)."""
    # About where it lies: DICOMscope fits its height into what toolbar and status line leave of the window.
    scale = window.shape[0] * 0.85 / film.shape[0]
    start = np.array([[scale, 0, 7], [0, scale, 68]])
    steps = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 500, 1e-7)
    fit, found = cv2.findTransformECC(film, window, start.astype(np.float32), cv2.MOTION_AFFINE, steps)
    assert fit > 0.99
    return found


@pytest.fixture(scope="module")
def dicomscope():
    """Skip where it cannot run, before anything is started."""
    for name in ("dicomscope", "Xvfb", "xdotool", "dcmqridx"):
        program(name)


def test_dicomscope_draws_the_boxes_of_the_report_by_the_presentation_state(dicomscope, answered, tmp_path):
    folders = {name: tmp_path / name for name in ("without", "with")}
    for folder in folders.values():
        folder.mkdir()
        shutil.copy(answered.film, folder / "film.dcm")
    state = folders["with"] / "state.dcm"
    state.write_bytes(answered.orthanc.file(answered.answers["PR"]))
    without = shown_by_dicomscope(folders["without"], folders["without"] / "film.dcm")
    shown = shown_by_dicomscope(folders["with"], folders["with"] / "film.dcm", state)
    if place := picture_to("pacs_gsps.png"):
        Image.fromarray(shown).save(place)
    boxes = boxes_of(dcmread(io.BytesIO(answered.orthanc.file(answered.answers["SR"]))))
    drawn = rectangles_in((shown.min(2) == 255) & (without.min(2) < 255))
    assert len(boxes) == len(drawn) >= 1
    film = placed(dcmread(answered.film).pixel_array, without[..., 0])
    assert film[:, :2] == pytest.approx(film[0, 0] * np.eye(2), abs=0.01)
    # Graphics count from the corner of the first pixel (PS3.3, C.10.5), OpenCV from its centre.
    expected = (boxes - 0.5) * film[0, 0] + np.tile(film[:, 2], 2)
    # DICOMscope subtracts one before it draws; what is measured are two pixels of the film, up and to the left.
    assert (expected - drawn) / film[0, 0] == pytest.approx(np.full_like(boxes, 2), abs=1)
