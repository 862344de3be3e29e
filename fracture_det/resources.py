"""What comes with the package, in a checkout and in an installed wheel: the configurations and the shipped detector."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent
# The repository, where this package lies in one; an installed wheel has the page as `fracture_det_webapp`.
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "webapp" / "__init__.py").is_file() else None


def resource(name: str) -> Path:
    """Return where `name` lies, such as `configs` or `weights/shipped`: in the checkout, else inside the package.

    The path is returned whether or not it exists: an installed wheel leaves out what only training needs.
    """
    return (CHECKOUT or PACKAGE) / name


def find_config(name: str | Path) -> Path:
    """Return the configuration file `name`, or the one of that name that comes with the package.

    `configs/faster_rcnn_R_50_FPN.yaml` is found in every folder; a local file of that name takes precedence.
    """
    path = Path(name)
    shipped = resource("configs").parent / path
    return shipped if not path.exists() and path.parts[:1] == ("configs",) and shipped.is_file() else path


# package -> the extra that has it; all others are of `train`.
EXTRAS = {
    "ray": "ray",
    **dict.fromkeys(("dicomweb_client", "fhir", "highdicom", "pydicom", "pynetdicom"), "dicom"),
    **dict.fromkeys(("effdet", "transformers"), "baselines"),
}


def how_to_install(package: str) -> str:
    """Return a sentence that says where a missing package comes from."""
    if package.partition(".")[0] == "detectron2":
        return (
            "it needs Detectron2, which is not installed and which PyPI does not have: after"
            ' `pip install "fracture_det[train]"`, `fracture-det build-detectron2 --out wheels`'
            " (tools/build_detectron2.py) builds it without a compiler,"
            " and `pip install --no-deps wheels/detectron2-*.whl` installs it"
        )
    extra = EXTRAS.get(package.partition(".")[0], "train")
    return f'it needs {package}, which is not installed: `pip install "fracture_det[{extra}]"`, or `make setup`'
