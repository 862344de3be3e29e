"""Which folders become which packages; everything else stands in pyproject.toml."""

from setuptools import find_packages, setup

PAGE = "fracture_det_webapp"

setup(
    packages=[
        *find_packages(include=["fracture_det*"]),
        "fracture_det.configs",
        "fracture_det.weights",
        *(PAGE + name.removeprefix("webapp") for name in find_packages(include=["webapp*"])),
    ],
    # The folder webapp/ is installed under a name that no other package has; its modules import each other relatively.
    # configs/ and weights/ lie inside the package there: fracture_det/resources.py finds them in either place.
    package_dir={PAGE: "webapp", "fracture_det.configs": "configs", "fracture_det.weights": "weights"},
)
