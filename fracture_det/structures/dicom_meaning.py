"""What DICOM's codes say of a picture: whether it is a radiograph, of a limb, and in which file of which kind it is."""

from __future__ import annotations

import re
from collections.abc import Iterable

# SOP classes that are read (PS3.6, table A-1). Secondary captures count by their modality.
COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"
DIGITAL_X_RAY = "1.2.840.10008.5.1.4.1.1.1.1"
SECONDARY_CAPTURES = ("1.2.840.10008.5.1.4.1.1.7", *(f"1.2.840.10008.5.1.4.1.1.7.{kind}" for kind in (2, 3, 4)))
READ_CLASSES = (COMPUTED_RADIOGRAPHY, DIGITAL_X_RAY, *SECONDARY_CAPTURES)
FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
DIRECTORY = "1.2.840.10008.1.3.10"
# PS3.3, C.7.3.1.1.1. RG: a film that was digitised; OT: a secondary capture of which nothing is known.
RADIOGRAPHS = ("CR", "DX", "RG")
MODALITIES = {
    "CT": "computed tomography",
    "MR": "magnetic resonance",
    "US": "ultrasound",
    "MG": "mammography",
    "NM": "nuclear medicine",
    "PT": "positron emission tomography",
    "XA": "X-ray angiography",
    "RF": "radiofluoroscopy",
    "IO": "intra-oral radiography",
    "PX": "panoramic dental radiography",
    "ES": "endoscopy",
    "XC": "photography",
    "ECG": "electrocardiography",
    "SR": "a structured report",
    "PR": "a presentation state",
    "KO": "a key object selection",
    "SEG": "a segmentation",
    "DOC": "a document",
    "RTDOSE": "a radiotherapy dose",
    "RTPLAN": "a radiotherapy plan",
    "RTSTRUCT": "a radiotherapy structure set",
    "RTIMAGE": "a radiotherapy image",
    "BMD": "bone densitometry",
}

# Body Part Examined and the coded anatomic regions (PS3.16, annex L and CID 4031): term -> codes of SNOMED CT and of
# the older SNOMED RT. Shoulder girdle and hip count as limbs, as in the data that detectors learn from.
LIMBS = {
    "ACJOINT": ("85856004", "T-15420"),
    "ANKLE": ("70258002", "T-15750"),
    "ARM": ("40983000", "T-D8200"),
    "CALCANEUS": ("80144004", "T-12770"),
    "CLAVICLE": ("51299004", "T-12310"),
    "ELBOW": ("16953009", "T-15430"),
    "EXTREMITY": ("66019005", "T-D0300"),
    "FEMUR": ("71341001", "T-12710"),
    "FIBULA": ("87342007", "T-12750"),
    "FINGER": ("7569003", "T-D8800"),
    "FOOT": ("56459004", "T-D9700"),
    "FOREARM": ("14975008", "T-D8500"),
    "HAND": ("85562004", "T-D8700"),
    "HIP": ("29836001", "T-D2500", "24136001", "T-15710"),
    "HUMERUS": ("85050009", "T-12410"),
    "KNEE": ("72696002", "T-D9200"),
    "LEG": ("30021000", "T-D9400"),
    "LOWERLIMB": ("61685007", "T-D9000", "72001000", "T-12700"),
    "PATELLA": ("64234005", "T-12730"),
    "RADIUS": (),
    "SCAPULA": ("79601000", "T-12280"),
    "SCJOINT": ("7844006", "T-15610"),
    "SESAMOID": ("58742003", "T-12980"),
    "SHOULDER": ("16982005", "T-D2220"),
    "TARSAL": ("27949001", "T-15770"),
    "THIGH": ("68367000", "T-D9100"),
    "THUMB": ("76505004", "T-D8810"),
    "TIBIA": (),
    "TOE": ("29707007", "T-D9800"),
    "ULNA": (),
    "UPPERLIMB": ("53120007", "T-D8000", "371195002", "T-D0821"),
    "WRIST": ("74670003", "T-15460"),
}
# How else they are written, in words of letters only.
_LIMB_WORDS = (
    "ANKLES CLAVICULA EXTREMITIES FEET FINGERS FOREFOOT HANDS HEEL HIPS KNEES LIMB LOWERLEG METACARPAL METATARSAL "
    "SCAPHOID SHOULDERS TOES UPPERARM WRISTS"
)
LIMB_WORDS = frozenset((*LIMBS, *_LIMB_WORDS.split()))
# Pelvis and ilium are in neither: a film of the hips is often called one of the pelvis, and its picture decides.
OTHERS = {
    "ABDOMEN": ("818981001", "818982008", "113345001", "T-D4000"),
    "BREAST": ("76752008", "T-04000"),
    "CHEST": ("816094009", "51185008", "T-D3000", "416550000", "416775004", "417437006", "416152001", "416319003"),
    "COCCYX": ("64688005", "T-11BF0"),
    "HEAD": ("69536005", "T-D1100", "774007", "T-D1000", "371398005", "363654007"),
    "HEART": ("80891009", "T-32000"),
    "JAW": ("661005", "T-D1213", "91609006", "T-11180", "70925003", "T-11170", "53620006", "T-15290"),
    "LUNG": ("86598002", "39607008", "T-28000"),
    "NECK": ("45048000", "T-D1600", "4596009", "44567001"),
    "PHANTOM": ("706342009", "R-FE0C7"),
    "RIB": ("113197003", "T-11300"),
    "SACRUM": ("54735007", "T-11AD0", "39723000", "T-15680", "1217254007"),
    "SKULL": ("89546000", "T-11100", "91397008", "T-11196", "2095001", "T-22000", "74386004", "13881006", "59066005"),
    "SPINE": (
        *("421060004", "T-D04FF", "122494005", "T-11501", "122495006", "T-11502", "122496007", "T-11503"),
        *("1217257000", "1217253001", "1217256009", "110517009"),
    ),
    "STERNUM": ("56873002", "T-11210"),
    "WHOLEBODY": ("38266002", "T-D0010"),
}
_OTHER_WORDS = (
    "ABDOMENPELVIS CHESTABDOMEN CHESTABDPELVIS COLON CRANIUM CSPINE CTSPINE DENTAL FACE FACIAL HEADNECK KIDNEY KUB "
    "LSPINE LSSPINE MANDIBLE MASTOID MAXILLA NASAL NOSE ORBIT RIBS SCOLIOSIS SIJOINT SINUS SINUSES SSPINE STOMACH "
    "TEETH THORAX TLSPINE TMJ TOOTH TRACHEA TSPINE ZYGOMA"
)
OTHER_WORDS = frozenset((*OTHERS, *_OTHER_WORDS.split()))
LIMB_CODES = frozenset(code for codes in LIMBS.values() for code in codes)
OTHER_CODES = {code: term for term, codes in OTHERS.items() for code in codes}
# View Position (0018,5101) and View Code Sequence (0054,0220; CID 4014) of mammography alone.
MAMMOGRAPHIC_VIEWS = frozenset(("CC", "MLO", "LMO", "XCC", "XCCL", "XCCM", "FB", "SIO", "ISO"))
MAMMOGRAPHIC_CODES = frozenset(("399162004", "R-10242", "399368009", "R-10226"))


def other_body_part(texts: Iterable[str], codes: Iterable[str], views: Iterable[str]) -> str | None:
    """Return the name of a part of the body that is no limb, where the tags name one and no limb; else None.

    texts: of Body Part Examined and the like, in any spelling. codes: of anatomic regions and views. views: terms of
    View Position. What is in none of the tables says nothing.
    """
    found: list[str] = []
    codes = list(codes)
    for text in texts:
        upper = text.upper()
        words = {re.sub(r"[^A-Z]", "", upper), *re.findall(r"[A-Z]+", upper)}
        if words & LIMB_WORDS:
            return None
        found += sorted(words & OTHER_WORDS)
    if LIMB_CODES.intersection(codes):
        return None
    found += [OTHER_CODES[code] for code in codes if code in OTHER_CODES]
    if MAMMOGRAPHIC_CODES.intersection(codes) or any(view.upper() in MAMMOGRAPHIC_VIEWS for view in views):
        found.append("BREAST")
    return found[0] if found else None
