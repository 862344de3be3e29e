import numpy as np
import pytest
from PIL import Image

from fracture_det.visualization import training_curves
from fracture_det.visualization.training_curves import draw_ap_curve, draw_loss_curves


def history(epochs=3, per_epoch=10):
    lines = []
    for iteration in range(epochs * per_epoch):
        line = {"iteration": iteration, "total_loss": 2 / (iteration + 1)}
        line |= {name: 0.5 / (iteration + 1) for name in training_curves.LOSS_TITLES if name != "loss"}
        if (iteration + 1) % per_epoch == 0:
            line |= {"validation_loss": 1.0, "validation_loss_cls": 0.4, "bbox/AP50": 10.0 * iteration}
        lines.append(line)
    return lines


class TestCurves:
    @pytest.mark.parametrize("draw", [draw_loss_curves, draw_ap_curve])
    @pytest.mark.parametrize(
        "lines",
        [
            [],
            history(),
            history(epochs=1),
            history()[:2],
            [{"iteration": 0}],
            [{"iteration": 9, "validation_loss": 1.0, "bbox/AP50": float("nan")}],
        ],
    )
    def test_any_history_gives_a_picture(self, tmp_path, draw, lines):
        draw(lines, 10, tmp_path / "curve.png")
        with Image.open(tmp_path / "curve.png") as image:
            assert image.format == "PNG"
            assert min(image.size) > 400

    def test_the_same_history_gives_the_same_bytes(self, tmp_path):
        for name in ("a.png", "b.png"):
            draw_loss_curves(history(), 10, tmp_path / name)
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()

    def test_iterations_become_epochs_and_ap_becomes_a_share(self, tmp_path, monkeypatch):
        saved = []
        monkeypatch.setattr(training_curves, "save", lambda figure, path: saved.append(figure))
        draw_ap_curve(history(), 10, tmp_path / "ap.png")
        draw_loss_curves(history(), 10, tmp_path / "loss.png")
        (line, best), loss = saved[0].axes[0].lines, saved[1].axes[0]
        assert line.get_xdata() == pytest.approx([1, 2, 3])
        assert line.get_ydata() == pytest.approx([0.9, 1.9, 2.9])
        assert best.get_xdata() == pytest.approx([3])
        raw, means, validation = loss.lines
        assert raw.get_xdata()[[0, -1]] == pytest.approx([0.1, 3])
        assert means.get_ydata()[0] == pytest.approx(np.mean([2 / (i + 1) for i in range(10)]))
        assert validation.get_xdata() == pytest.approx([1, 2, 3])
        assert len(saved[1].axes) == 5

    def test_of_two_lines_about_one_iteration_the_later_counts(self, tmp_path, monkeypatch):
        saved = []
        monkeypatch.setattr(training_curves, "save", lambda figure, path: saved.append(figure))
        draw_ap_curve([{"iteration": 9, "bbox/AP50": 10.0}, {"iteration": 9, "bbox/AP50": 30.0}], 10, tmp_path / "x")
        assert saved[0].axes[0].lines[0].get_ydata() == pytest.approx([0.3])
