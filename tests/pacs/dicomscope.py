"""OFFIS' DICOMscope, a viewer made for presentation states, on a screen that nobody sees."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager

import numpy as np
from PIL import ImageGrab

from tests.pacs.programs import program, wait_for

# Width, height. DICOMscope's window fills a screen without a window manager.
SCREEN_PX = (1000, 900)
# As in docs/pacs.md; without ports, for nothing is to be sent or received.
CONFIG = "[[GENERAL]]\n[APPLICATION]\n[DATABASE]\nDirectory = {folder}\n"
# Where the rows of its browser begin, and how high one of an object is that has not been opened yet.
FIRST_ROW_PX, ROW_PX = 97, 16


@contextmanager
def _screen():
    """Run an X server; give the name of its display."""
    width, height = SCREEN_PX
    # Without -noreset it begins anew, and turns clients away, whenever its last one has left.
    command = [program("Xvfb"), "-displayfd", "1", "-noreset", "-screen", "0", f"{width}x{height}x24"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield f":{server.stdout.readline().strip()}"
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()


@contextmanager
def _viewer(folder, display):
    """Run DICOMscope in `folder`, on its index of files."""
    environ = {**os.environ, "DISPLAY": display, "HOME": str(folder)}
    with (folder / "dicomscope.log").open("w") as log:
        # A shell script that starts Java: one group of processes.
        viewer = subprocess.Popen(
            [program("dicomscope")], env=environ, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield viewer
    finally:
        os.killpg(viewer.pid, signal.SIGKILL)
        viewer.wait(30)


class _Desktop:
    def __init__(self, display):
        self.display = display

    def seen(self):
        """Return the screen as (H, W, 3) uint8 RGB."""
        return np.asarray(ImageGrab.grab(xdisplay=self.display).convert("RGB"))

    def double_click(self, x_px, y_px):
        mouse = [program("xdotool"), "mousemove", str(x_px), str(y_px), "click", "--repeat", "2", "--delay", "80", "1"]
        subprocess.run(mouse, check=True, env={**os.environ, "DISPLAY": self.display})

    def has_row(self, y_px):
        """Whether the browser's tree, dark on white, has something in this row."""
        row = self.seen()[y_px - 5 : y_px + 5, 60:400]
        return row.min() < 128 < 200 < row.mean()

    def opened(self):
        """Return what the screen shows once an image is open and the screen has not changed for a second, else None."""
        before = self.seen()
        time.sleep(1)
        now = self.seen()
        # The browser is white; the viewer has a film on black, and light controls at the right.
        is_open = now[100:700, 20:500].mean() < 128 < now[600:800, 800:980].mean()
        return now if is_open and np.array_equal(before, now) else None


def shown_by_dicomscope(folder, film, state=None):
    """Return DICOMscope's window, (H, W, 3) uint8 RGB, with the film, under the presentation state if there is one.

    film, state: paths in `folder`, which is to hold nothing else.
    """
    (folder / "DICOMscope.cfg").write_text(CONFIG.format(folder=folder))
    files = [film] if state is None else [film, state]
    subprocess.run([program("dcmqridx"), folder, *files], check=True)
    # The study, then the series of images and that of states; the last one opens, and has one object.
    rows = [FIRST_ROW_PX, FIRST_ROW_PX + len(files) * ROW_PX, FIRST_ROW_PX + (len(files) + 1) * ROW_PX]
    with _screen() as display, _viewer(folder, display) as viewer:
        desktop = _Desktop(display)

        def shows_row(y_px):
            assert viewer.poll() is None, (folder / "dicomscope.log").read_text()
            return desktop.has_row(y_px)

        for row in rows:
            wait_for(lambda row=row: shows_row(row), f"DICOMscope's row at {row} px", 60)
            desktop.double_click(130, row)
        [picture] = wait_for(lambda: [one for one in [desktop.opened()] if one is not None], "DICOMscope's picture", 60)
        return picture
