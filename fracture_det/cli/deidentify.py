"""Write copies of DICOM radiographs without their patients, to train on or to pass on.

    fracture-det deidentify --input STUDIES --out datasets/deidentified

Every DICOM radiograph in the folder becomes a new file, called by its new UID: dicognito's pseudonyms for ids and UIDs,
a short list of attributes of the picture, and nothing else (PS3.15, annex E; docs/dicom.md). With the same
FRACTURE_SITE_SECRET, of at least 16 characters, the same patient gets the same pseudonym. Pixels are not looked at: a
file that says that writing is burned into its picture is refused, and so is a second one with the same SOP instance
UID. Exit code 1 where a file is refused.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tqdm import tqdm

from fracture_det.data.deidentified import deidentify_dicom
from fracture_det.data.dicom_groups import SECRET_VARIABLE
from fracture_det.structures.dicom import MIN_SECRET_BYTES
from fracture_det.structures.image_files import find_images
from fracture_det.structures.radiograph import UnreadableImage, UnsupportedImage, read_dicom_file
from fracture_det.structures.wording import counted


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog="fracture-det deidentify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", required=True, metavar="PATH", help="a DICOM file, a folder or a glob")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the new files")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = build_parser().parse_args(argv)
    secret = os.environ.get(SECRET_VARIABLE, "").encode()
    if len(secret) < MIN_SECRET_BYTES:
        print(f"deidentify: {SECRET_VARIABLE}: expected at least {MIN_SECRET_BYTES} characters", file=sys.stderr)
        return 2
    try:
        files = find_images(args.input, leave_out=args.out).files
    except ValueError as error:
        print(f"deidentify: {error}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    refused, copied = 0, dict[str, str]()
    for name, path in tqdm(files, unit="file", disable=None):
        try:
            clean = deidentify_dicom(path.read_bytes(), secret)
            uid = read_dicom_file(clean).sop_instance_uid or ""
            if uid in copied:
                raise UnsupportedImage(
                    f"a DICOM file with the SOPInstanceUID of {copied[uid]}, which has that name here"
                )
        except (UnreadableImage, OSError) as error:
            refused += 1
            print(f"{name}: {getattr(error, 'reason', error)}", file=sys.stderr)
            continue
        copied[uid] = name
        (args.out / f"{uid}.dcm").write_bytes(clean)
    print(f"{args.out}: {counted(len(files) - refused, 'radiograph')}, {refused} refused")
    return 1 if refused else 0
