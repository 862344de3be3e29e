"""Build a Detectron2 wheel that needs neither a compiler nor GitHub.

    fracture-det build-detectron2 --out .venv/wheels

Detectron2 has no release of its own on PyPI. The source archive `pb1-detectron2` 0.6 there holds
exactly the Python tree of the official tag v0.6, but not the C++ sources, so its own build fails.
Faster R-CNN needs none of those sources: torchvision brings NMS and RoIAlign. This script

1. downloads the archive from the configured package index and checks its SHA-256,
2. patches what is outdated (`PATCHES` below; each must match exactly as often as stated, or the build stops):
   - the import of the compiled `_C` becomes optional (rotated boxes and deformable convolution are
     then unavailable; nothing here uses them), and so does that of the compiled COCO evaluation,
   - the Caffe2 exporter becomes optional, as in later Detectron2: PyTorch no longer has Caffe2,
   - several processes may run on a machine without a GPU (gloo), as in later Detectron2,
   - `PIL.Image.LINEAR`, gone since Pillow 10, becomes `BILINEAR`,
   - `pkg_resources`, gone from setuptools, becomes `importlib.resources`,
3. builds the wheel `detectron2-0.6+python` with the model zoo's yaml files as package data.

`make setup DETECTRON2=source` installs the official repository instead and never calls this script.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

ARCHIVE = "pb1-detectron2-0.6.tar.gz"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
VERSION = "0.6+python"

_IMPORT_C = "from detectron2 import _C\n"
_OPTIONAL_C = (
    "try:\n    from detectron2 import _C\nexcept ImportError:  # built without the C++ extension\n    _C = None\n"
)
# (file, text, replacement, how often the text occurs)
PATCHES = [
    ("layers/deform_conv.py", _IMPORT_C, _OPTIONAL_C, 1),
    ("layers/roi_align_rotated.py", _IMPORT_C, _OPTIONAL_C, 1),
    ("layers/rotated_boxes.py", _IMPORT_C, _OPTIONAL_C, 1),
    (
        "evaluation/coco_evaluation.py",
        "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
        "try:\n    from detectron2.evaluation.fast_eval_api import COCOeval_opt\n"
        "except ImportError:  # the compiled evaluation is absent: pycocotools' own does the work\n"
        "    COCOeval_opt = COCOeval\n",
        1,
    ),
    (
        "engine/launch.py",
        '    assert torch.cuda.is_available(), "cuda is not available. Please check your installation."\n',
        "    has_gpu = torch.cuda.is_available()\n",
        1,
    ),
    ("engine/launch.py", 'backend="NCCL"', 'backend="NCCL" if has_gpu else "GLOO"', 1),
    (
        "engine/launch.py",
        "    assert num_gpus_per_machine <= torch.cuda.device_count()\n    torch.cuda.set_device(local_rank)\n",
        "    if has_gpu:\n        assert num_gpus_per_machine <= torch.cuda.device_count()\n"
        "        torch.cuda.set_device(local_rank)\n",
        1,
    ),
    (
        "export/__init__.py",
        "from .api import *\n",
        "try:\n    from caffe2.proto import caffe2_pb2 as _tmp  # gone from current PyTorch\n"
        "    from .api import *\nexcept ImportError:\n    pass\n",
        1,
    ),
    ("data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR", 1),
    ("model_zoo/model_zoo.py", "import pkg_resources\n", "from importlib import resources\n", 1),
    (
        "model_zoo/model_zoo.py",
        'pkg_resources.resource_filename(\n        "detectron2.model_zoo", os.path.join("configs", config_path)\n    )',
        'str(resources.files("detectron2.model_zoo") / "configs" / config_path)',
        1,
    ),
]

SETUP_PY = f"""
from setuptools import find_packages, setup

projects = {{
    "detectron2.projects.point_rend": "projects/PointRend/point_rend",
    "detectron2.projects.deeplab": "projects/DeepLab/deeplab",
    "detectron2.projects.panoptic_deeplab": "projects/Panoptic-DeepLab/panoptic_deeplab",
}}
setup(
    name="detectron2",
    version="{VERSION}",
    packages=find_packages(include=["detectron2*"]) + list(projects),
    package_dir=projects,
    package_data={{"detectron2.model_zoo": ["configs/**/*.yaml", "configs/**/*.py"]}},
    license="Apache-2.0",
)
"""


class BuildError(RuntimeError):
    """The archive is not the one that this script can patch."""


def package_index() -> str:
    """Return the simple index that pip is configured to use."""
    if index := os.environ.get("PIP_INDEX_URL"):
        return index
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True
    )
    return answer.stdout.strip() or "https://pypi.org/simple"


def download(folder: Path) -> Path:
    """Fetch the archive from the package index into `folder`."""
    page_url = f"{package_index().rstrip('/')}/pb1-detectron2/"
    with urllib.request.urlopen(page_url, timeout=120) as answer:  # nosec
        page = answer.read().decode()
    links = [html.unescape(link) for link in re.findall(r'href="([^"]+)"', page)]
    urls = [urllib.parse.urljoin(page_url, link) for link in links if f"/{ARCHIVE}" in link]
    if not urls:
        raise BuildError(f"{page_url}: no link to {ARCHIVE}")
    target = folder / ARCHIVE
    with urllib.request.urlopen(urls[0], timeout=120) as answer:  # nosec
        target.write_bytes(answer.read())
    return target


def check_sha256(archive: Path) -> None:
    """Raise BuildError unless `archive` is byte for byte the known one."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise BuildError(f"{archive}: SHA-256 is {digest}, expected {SHA256}")


def patch(package: Path) -> None:
    """Apply PATCHES to the unpacked `detectron2` package and check that nothing outdated is left."""
    for name, text, replacement, times in PATCHES:
        path = package / name
        source = path.read_text()
        if source.count(text) != times:
            raise BuildError(f"{path}: {text!r} occurs {source.count(text)} times, expected {times}")
        path.write_text(source.replace(text, replacement))
    for path in package.rglob("*.py"):
        for gone in ("pkg_resources", "Image.LINEAR"):
            if gone in path.read_text():
                raise BuildError(f"{path}: still uses {gone}")


def build(archive: Path, out: Path) -> Path:
    """Unpack, patch and build; return the wheel's path in `out`."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        tree = next(Path(folder).glob("pb1*detectron2-0.6"))
        patch(tree / "detectron2")
        (tree / "setup.py").write_text(SETUP_PY)
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*pip, "--wheel-dir", str(out.resolve()), str(tree)], check=True)
    return next(out.glob("detectron2-0.6+python-*.whl"))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fracture-det build-detectron2", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the wheel; made if missing")
    parser.add_argument("--archive", type=Path, help=f"a local copy of {ARCHIVE}, instead of the download")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code, 2 when no wheel was built."""
    args = build_parser().parse_args(argv)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            archive = args.archive or download(Path(folder))
            check_sha256(archive)
            print(build(archive, args.out))
    except (BuildError, OSError, subprocess.CalledProcessError) as error:
        print(f"build-detectron2: {error}", file=sys.stderr)
        return 2
    return 0
