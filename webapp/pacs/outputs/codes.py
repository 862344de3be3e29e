"""The codes of what is found and where: SNOMED CT, and a scheme of our own for what no standard has a code for."""

from __future__ import annotations

from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes

from fracture_det.structures.fracture_types import fracture_types

from ...presentation import LIKELY, NONE_SEEN, POSSIBLE

SCHEME = "99FRACTUREDET"
FRACTURE = CodedConcept("125605004", "SCT", "Fracture of bone")
BONE = CodedConcept("272673000", "SCT", "Bone structure")
# Body Part Examined (PS3.16 annex L) -> SNOMED CT.
SITES = {
    "ANKLE": ("70258002", "Ankle joint"),
    "ARM": ("40983000", "Upper arm"),
    "CALCANEUS": ("80144004", "Calcaneus"),
    "CLAVICLE": ("51299004", "Clavicle"),
    "ELBOW": ("16953009", "Elbow joint"),
    "FEMUR": ("71341001", "Femur"),
    "FINGER": ("7569003", "Finger"),
    "FOOT": ("56459004", "Foot"),
    "FOREARM": ("14975008", "Forearm"),
    "HAND": ("85562004", "Hand"),
    "HIP": ("24136001", "Hip joint"),
    "HUMERUS": ("85050009", "Humerus"),
    "KNEE": ("72696002", "Knee"),
    "LEG": ("30021000", "Lower leg"),
    "PATELLA": ("64234005", "Patella"),
    "PELVIS": ("12921003", "Pelvis"),
    "RADIUS": ("62413002", "Radius"),
    "SCAPULA": ("79601000", "Scapula"),
    "SHOULDER": ("16982005", "Shoulder"),
    "THIGH": ("68367000", "Thigh"),
    "THUMB": ("76505004", "Thumb"),
    "TIBIA": ("12611008", "Tibia"),
    "TOE": ("29707007", "Toe"),
    "ULNA": ("23416004", "Ulna"),
    "WRIST": ("74670003", "Wrist joint"),
}


def own_code(value: str, meaning: str) -> CodedConcept:
    """Return a code of our own scheme."""
    return CodedConcept(value.upper()[:16], SCHEME, meaning[:64])


def type_code(name: str) -> CodedConcept:
    """Return the code of a type of fracture: SNOMED CT's where the list has one of the same meaning, else our own."""
    kind = fracture_types().find(name)
    if kind is None:
        return own_code(name, name)
    for code in kind.codes:
        if code.scheme == "SCT" and code.relation == "equivalent":
            return CodedConcept(code.value, code.scheme, code.meaning[:64])
    return own_code(kind.name, f"{kind.title} fracture")


LEVEL_CODES = {
    LIKELY: own_code("LIKELY", "Fracture likely"),
    POSSIBLE: own_code("POSSIBLE", "Fracture possible"),
    NONE_SEEN: own_code("NONESEEN", "No fracture seen; this does not rule one out"),
    "not analysed": own_code("NOTANALYSED", "Not analysed"),
}


FRACTURE_TYPE = own_code("FRACTURETYPE", "Type of fracture")


def site_of(header: Dataset) -> CodedConcept:
    """Return the code of the body part, or of bone where the header names none that is known."""
    value, meaning = SITES.get(str(header.get("BodyPartExamined", "")).upper(), (None, None))
    return BONE if value is None or meaning is None else CodedConcept(value, "SCT", meaning)


def laterality_of(header: Dataset) -> CodedConcept | None:
    """Return the code of the side, or None where the header names none."""
    side = str(header.get("ImageLaterality") or header.get("Laterality") or "").upper()
    return {"L": codes.SCT.Left, "R": codes.SCT.Right}.get(side)
