"""The package's front door."""

import subprocess
import sys

import pytest

from fracture_det import figures


def test_every_figure_is_found_by_its_name():
    assert all(callable(getattr(figures, name)) for name in figures.__all__ if name.startswith("draw_"))
    with pytest.raises(AttributeError, match="no attribute 'draw_nothing'"):
        _ = figures.draw_nothing


def test_overlays_are_drawn_without_matplotlib():
    code = "import sys; from fracture_det.figures import draw_overlay; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
