"""dicom-validator finds no error in what is sent back; it knows the standard from the package dicom-standard."""

import io

import pytest
from pydicom import dcmread

from tests.pacs.standard_2020 import standard
from tests.pacs.test_outputs import FEEDBACK, LIKELY, NONE_SEEN, REFUSED, SOURCES, answer, everything, image

validator = pytest.importorskip("dicom_validator.validator.iod_validator", reason="no dicom-validator here")
pytest.importorskip("dicom_standard", reason="no dicom-standard here")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
CLASSES = (
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.11.1",  # Grayscale Softcopy Presentation State
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image
    "1.2.840.10008.5.1.4.1.1.104.1",  # Encapsulated PDF
)


def errors_in(ds):
    """Return (module, tag, what is wrong) of every error."""
    from dicom_validator.validator.error_handler import NullValidationResultHandler

    silent = NullValidationResultHandler()
    result = validator.IODValidator(ds, standard(CLASSES), suppress_vr_warnings=False, error_handler=silent).validate()
    found = {
        (module, str(tag), error.code.name)
        for module, errors in result.module_errors.items()
        for tag, error in errors.items()
    }
    assert bool(found) == bool(result.errors)
    return found


@pytest.mark.parametrize("result", [LIKELY, NONE_SEEN, REFUSED], ids=lambda result: result.finding or "refused")
@pytest.mark.parametrize("source", SOURCES)
def test_no_error_is_found(tmp_path, source, result):
    said = answer(image(tmp_path, 1, result, **SOURCES[source]), image(tmp_path, 2, REFUSED))
    for kind, content in everything(said).items():
        assert errors_in(dcmread(io.BytesIO(content))) == set(), kind


def test_no_error_is_found_in_a_correction(tmp_path):
    for kind, content in everything(answer(image(tmp_path, 1, LIKELY, FEEDBACK), version=2)).items():
        assert errors_in(dcmread(io.BytesIO(content))) == set(), kind


@pytest.mark.parametrize(
    ("kind", "keyword", "module", "code"),
    [
        ("sr", "CompletionFlag", "SR Document General", "TagMissing"),
        ("sr", "Manufacturer", "General Equipment", "TagMissing"),
        ("gsps", "PresentationLUTShape", "Softcopy Presentation LUT", "TagMissing"),
        ("sc", "ConversionType", "SC Equipment", "TagMissing"),
        ("pdf", "MIMETypeOfEncapsulatedDocument", "Encapsulated Document", "TagMissing"),
    ],
)
def test_what_is_missing_would_be_found(tmp_path, kind, keyword, module, code):
    ds = dcmread(io.BytesIO(everything(answer(image(tmp_path, 1, LIKELY)))[kind]))
    delattr(ds, keyword)
    assert any((found[0], found[2]) == (module, code) for found in errors_in(ds))
