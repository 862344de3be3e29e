"""Which annotation belongs to which image."""

from __future__ import annotations

import pytest

from fracture_det.data.pairing import open_annotations


def test_a_yolo_folder_without_names_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="--yolo-names"):
        open_annotations(tmp_path, "yolo", [])
    with pytest.raises(ValueError, match=r"format: expected one of voc, yolo, coco.*, got 'nonsense'"):
        open_annotations(tmp_path, "nonsense", [])
