"""Packaging. Versions are pinned in requirements/; Detectron2 is built by tools/build_detectron2.py."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def names(file: str) -> list[str]:
    """Return the requirements that requirements/`file` names itself, without what it includes."""
    lines = (ROOT / "requirements" / file).read_text(encoding="utf-8").splitlines()
    return [line.partition("#")[0].strip() for line in lines if line and not line.startswith(("#", "-r"))]


version = re.search(r'__version__ = "(.+)"', (ROOT / "fracture_det" / "__init__.py").read_text(encoding="utf-8"))
assert version, "fracture_det/__init__.py names no version"
setup(
    name="fracture_det",
    version=version[1],
    description="Bone fracture detection on limb radiographs with Faster R-CNN, from LabelImg files to a web page",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["fracture_det*", "webapp*"]),
    package_data={
        "fracture_det": ["reporting/templates/*"],
        "webapp": ["templates/**", "static/**", "store/migrations/**"],
    },
    python_requires=">=3.10,<3.13",
    install_requires=names("serve.in"),
    extras_require={"full": [*names("full.in"), "detectron2"], "dev": [*names("full.in"), *names("dev.in")]},
)
