"""The list of fracture types, and types of detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fracture_det.inference.ensemble import weighted_boxes_fusion
from fracture_det.structures.detections import Detections
from fracture_det.structures.fracture_types import FractureTypeError, fracture_types

BOX = [10.0, 10.0, 20.0, 20.0]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("comminuted", "comminuted"),
        ("Comminuted fracture", "comminuted"),
        ("Fracture-Dislocation", "dislocation"),
        ("FRACTURE_DISLOCATION", "dislocation"),
        ("linear", "longitudinal"),
        ("multifragmentary fractures", "comminuted"),
    ],
)
def test_a_type_is_found_by_every_spelling(text: str, name: str) -> None:
    kind = fracture_types().find(text)

    assert kind is not None
    assert kind.name == name


@pytest.mark.parametrize("text", ["", "fracture", "healthy", "spira"])
def test_what_is_no_type_is_none(text: str) -> None:
    assert fracture_types().find(text) is None


def test_a_file_with_one_name_for_two_types_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "types.yaml"
    path.write_text("types:\n- {name: spiral, definition: A.}\n- {name: torsion, definition: B., synonyms: [Spiral]}\n")

    with pytest.raises(FractureTypeError, match=r"types\.yaml: 'spiral' stands for both 'spiral' and 'torsion'"):
        fracture_types(path)


def test_a_file_with_a_wrong_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "types.yaml"
    path.write_text("types:\n- {name: spiral, definition: A., colour: red}\n")

    with pytest.raises(FractureTypeError, match=r"types\.yaml.*colour"):
        fracture_types(path)


def test_a_relation_that_no_code_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "types.yaml"
    code = "{scheme: SCT, value: '1', meaning: x, relation: like}"
    path.write_text(f"types:\n- {{name: spiral, definition: A., codes: [{code}]}}\n")

    with pytest.raises(FractureTypeError, match=r"types\.yaml.*relation.*like"):
        fracture_types(path)


def test_every_snomed_code_has_its_check_digit() -> None:
    """Verhoeff's check digit, by the dihedral group of ten elements, as SNOMED CT's specification (5.5) has it."""
    codes = [code.value for kind in fracture_types().types for code in kind.codes if code.scheme == "SCT"]

    assert len(codes) == len(set(codes)) >= 4
    for code in codes:
        assert _verhoeff(code) == 0, code
        assert _verhoeff(code[:-1] + str((int(code[-1]) + 1) % 10)) != 0


def _verhoeff(digits: str) -> int:
    """Return 0 for a number with a right check digit; rotations and reflections of a pentagon, composed."""
    rotation, reflected = 0, False
    for place, digit in enumerate(map(int, reversed(digits))):
        for _ in range(place % 8):
            digit = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[digit]
        rotation = (rotation + (-1 if reflected else 1) * (digit % 5)) % 5
        reflected ^= digit >= 5
    return rotation + 5 * reflected


def test_types_follow_their_boxes() -> None:
    detections = Detections.from_unsorted([BOX, BOX], [0.2, 0.8], [0, 0], [[0.9, 0.1], [0.3, 0.7]])

    assert detections.types is not None
    np.testing.assert_allclose(detections.types, [[0.3, 0.7], [0.9, 0.1]], rtol=1e-6)
    np.testing.assert_allclose(detections.above(0.5).types, [[0.3, 0.7]], rtol=1e-6)
    # .8 of .3 and .2 of .9
    np.testing.assert_allclose(detections.image_types(), [0.42, 0.58], rtol=1e-6)
    assert Detections.empty().image_types() is None


@pytest.mark.parametrize("types", [[[0.5, 0.6]], [[1.2, -0.2]], [0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]]])
def test_types_that_are_no_probabilities_are_refused(types: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"Detections\.types"):
        Detections.from_unsorted([BOX], [0.5], [0], types)


def test_fusion_takes_the_mean_of_types_by_score() -> None:
    first = Detections.from_unsorted([BOX], [0.6], [0], [[1.0, 0.0]])
    second = Detections.from_unsorted([BOX], [0.2], [0], [[0.0, 1.0]])

    fused = weighted_boxes_fusion([first, second])

    np.testing.assert_allclose(fused.types, [[0.75, 0.25]], rtol=1e-6)


def test_fusion_with_one_that_tells_no_types_tells_none() -> None:
    first = Detections.from_unsorted([BOX], [0.6], [0], [[1.0, 0.0]])

    assert weighted_boxes_fusion([first, Detections.from_unsorted([BOX], [0.2], [0])]).types is None
