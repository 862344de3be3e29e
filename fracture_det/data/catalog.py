"""Data sets and radiographs on their way into Detectron2: registration, mapper, augmentation, sampling."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.structures import Boxes, Instances
from fvcore.transforms.transform import Transform

from fracture_det.detections import box_area
from fracture_det.images import Letterbox, read_radiograph

SPEC_SEPARATOR = "@"


class CatalogError(ValueError):
    """A data set cannot be registered; the message names the file and what is wrong with it."""


def register_datasets(names: Sequence[str], class_names: Sequence[str]) -> None:
    """Register every data set of `names` that Detectron2 does not know yet.

    A name is one that was registered before, or `ANNOTATIONS.json@IMAGE_FOLDER`, which is registered under itself.
    Healthy images (no annotation) are kept.

    Raises CatalogError for a missing file or image folder, for missing images and for other classes than ours.
    """
    for name in names:
        if name in DatasetCatalog:
            continue
        json_file, separator, image_folder = name.rpartition(SPEC_SEPARATOR)
        if not separator:
            raise CatalogError(f"data set {name!r}: neither registered nor of the form ANNOTATIONS.json@IMAGE_FOLDER")
        _check_coco(Path(json_file), Path(image_folder), class_names)
        DatasetCatalog.register(
            name, lambda name=name, file=json_file, images=image_folder: load_coco_json(file, images, name)
        )
        MetadataCatalog.get(name).set(json_file=json_file, image_root=image_folder, evaluator_type="coco")


def _check_coco(json_file: Path, image_folder: Path, class_names: Sequence[str]) -> None:
    if not json_file.is_file():
        raise CatalogError(f"{json_file}: no such file; make it with tools/prepare_dataset.py")
    if not image_folder.is_dir():
        raise CatalogError(f"{image_folder}: no such image folder (for {json_file})")
    content = json.loads(json_file.read_text(encoding="utf-8"))
    found = [category["name"] for category in sorted(content.get("categories", []), key=lambda c: c["id"])]
    if found != list(class_names):
        raise CatalogError(f"{json_file}: categories {found}, but DATASETS.CLASS_NAMES is {list(class_names)}")
    missing = [image["file_name"] for image in content["images"] if not (image_folder / image["file_name"]).is_file()]
    if missing:
        raise CatalogError(
            f"{json_file}: {len(missing)} of {len(content['images'])} images are not in {image_folder}, "
            f"the first is {missing[0]}"
        )


class LetterboxTransform(Transform):
    """Detectron2's form of `Letterbox` for an image of `size` (height, width)."""

    def __init__(self, letterbox: Letterbox, size: tuple[int, int]) -> None:
        super().__init__()
        self.letterbox = letterbox
        self.size = size

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Return the letterboxed image."""
        return self.letterbox.apply_image(img)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Map points (N, 2) x y."""
        return self.letterbox.apply_boxes(np.tile(coords, 2), self.size)[:, :2]


class RandomLetterbox(T.Augmentation):
    """Letterbox to `size` times a factor drawn from `scale` (low, high); `step` as in Letterbox."""

    def __init__(self, size: int, scale: tuple[float, float] = (1.0, 1.0), step: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.scale = scale
        self.step = step

    def get_transform(self, image: np.ndarray) -> LetterboxTransform:
        """Return the transform for this (H, W, 3) image."""
        size = round(self.size * np.random.uniform(*self.scale))
        return LetterboxTransform(Letterbox(size, self.step), image.shape[:2])


class TransposeTransform(Transform):
    """Exchange rows and columns: with the flips, every right-angled orientation of a limb."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Return the (W, H, 3) image."""
        return np.ascontiguousarray(img.transpose(1, 0, 2))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Map points (N, 2) x y."""
        return coords[:, ::-1]


class HonestCrop(T.Augmentation):
    """A random crop that never cuts a box: its window grows until each box lies wholly inside or wholly outside.

    A cut box would either teach a wrong outline or, dropped, a visible fracture as background. The window's size is
    drawn as Detectron2's INPUT.CROP.TYPE and SIZE say; with the chance `around_box` it is laid around one of the boxes.
    """

    def __init__(self, crop_type: str, crop_size: Sequence[float], around_box: float = 0.0) -> None:
        super().__init__()
        self.window = T.RandomCrop(crop_type, crop_size)
        self.around_box = around_box

    def get_transform(self, image: np.ndarray, boxes: np.ndarray) -> Transform:
        """Return the crop for this (H, W, 3) image with boxes (M, 4) x0 y0 x1 y1."""
        sides = np.array(self.window.get_crop_size(image.shape[:2]))[::-1]  # width, height
        limit = np.array(image.shape[1::-1])
        sides = np.minimum(sides, limit)
        low, high = np.zeros(2), limit - sides
        if len(boxes) and np.random.random() < self.around_box:
            box = boxes[np.random.randint(len(boxes))]
            low = np.clip(np.minimum(box[:2], box[2:] - sides), 0, high)
            high = np.clip(np.maximum(box[:2], box[2:] - sides), 0, high)
        start = np.floor(np.random.uniform(low, high + 1e-9)).astype(int)
        x0, y0, x1, y1 = grow_to_whole_boxes((*start, *(start + sides)), boxes, (int(limit[1]), int(limit[0])))
        return T.CropTransform(x0, y0, x1 - x0, y1 - y0)


def grow_to_whole_boxes(window: Sequence[float], boxes: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the smallest whole-pixel window around `window` x0 y0 x1 y1 that cuts none of `boxes` (M, 4).

    size: (height, width) of the image, which the window never leaves.
    """
    grown = np.array(window, dtype=np.float64)
    while True:
        touches = (boxes[:, :2] < grown[2:]).all(1) & (boxes[:, 2:] > grown[:2]).all(1)
        wider = grown.copy()
        if touches.any():
            wider[:2] = np.minimum(grown[:2], np.floor(boxes[touches, :2].min(0)))
            wider[2:] = np.maximum(grown[2:], np.ceil(boxes[touches, 2:].max(0)))
        wider = np.clip(wider, 0, [size[1], size[0]] * 2)
        if (wider == grown).all():
            x0, y0, x1, y1 = (int(value) for value in grown)
            return x0, y0, x1, y1
        grown = wider


class TiltTransform(T.RotationTransform):
    """Turn an image of (h, w) by `angle` degrees; it grows so that no corner is lost, zeros fill the rest.

    A fracture fills its box as an ellipse rather than to the corners, so a turned box is the frame of the turned
    ellipse: the frame of its turned corners would be a third too large at 10 degrees and teach loose boxes.
    """

    def __init__(self, h: int, w: int, angle: float) -> None:
        super().__init__(h, w, angle, expand=True)
        self.radians = np.deg2rad(angle)

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """Return boxes (N, 4) x0 y0 x1 y1."""
        box = np.asarray(box, dtype=np.float64).reshape(-1, 4)
        centre = np.asarray(self.apply_coords((box[:, :2] + box[:, 2:]) / 2), dtype=np.float64).reshape(-1, 2)
        across, down = ((box[:, 2:] - box[:, :2]) / 2).T
        cosine, sine = np.cos(self.radians), np.sin(self.radians)
        half = np.stack([np.hypot(across * cosine, down * sine), np.hypot(across * sine, down * cosine)], axis=1)
        return np.concatenate([centre - half, centre + half], axis=1)


class RandomTilt(T.Augmentation):
    """Turn by an angle drawn from -`degrees` to `degrees`."""

    def __init__(self, degrees: float) -> None:
        super().__init__()
        self.degrees = degrees

    def get_transform(self, image: np.ndarray) -> TiltTransform:
        """Return the transform for this (H, W, 3) image."""
        height, width = image.shape[:2]
        return TiltTransform(height, width, np.random.uniform(-self.degrees, self.degrees))


class RandomGamma(T.Augmentation):
    """Raise the grey value (0..1) to a power drawn from (low, high), evenly on a log scale: the window of a viewer."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.limits = np.log([low, high])

    def get_transform(self, image: np.ndarray) -> T.ColorTransform:
        """Return the transform for this (H, W, 3) uint8 image."""
        table = (np.linspace(0, 1, 256) ** np.exp(np.random.uniform(*self.limits)) * 255).round().astype(np.uint8)
        return T.ColorTransform(lambda pixels: table[pixels])


def build_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Return the training augmentations that the INPUT keys ask for, in the order in which they are applied."""
    inputs = cfg.INPUT
    augmentations: list[T.Augmentation] = [RandomTilt(inputs.TILT)] if inputs.TILT else []
    augmentations.append(RandomLetterbox(inputs.LETTERBOX, tuple(inputs.SCALE)))
    if inputs.CROP.ENABLED:
        augmentations.append(HonestCrop(inputs.CROP.TYPE, inputs.CROP.SIZE, inputs.CROP.AROUND_BOX))
    if inputs.RANDOM_FLIP == "horizontal":
        augmentations.append(T.RandomFlip(horizontal=True, vertical=False))
    if inputs.VERTICAL_FLIP:
        augmentations.append(T.RandomFlip(prob=inputs.VERTICAL_FLIP, horizontal=False, vertical=True))
    if inputs.TRANSPOSE:
        augmentations.append(T.RandomApply(TransposeTransform(), prob=inputs.TRANSPOSE))
    if tuple(inputs.GAMMA) != (1.0, 1.0):
        augmentations.append(RandomGamma(*inputs.GAMMA))
    if tuple(inputs.BRIGHTNESS) != (1.0, 1.0):
        augmentations.append(T.RandomBrightness(*inputs.BRIGHTNESS))
    if tuple(inputs.CONTRAST) != (1.0, 1.0):
        augmentations.append(T.RandomContrast(*inputs.CONTRAST))
    return augmentations


class FractureMapper:
    """Turns a data set dict into a model input: read, letterbox, augment; boxes into Instances.

    is_train: with augmentation. with_truth: Instances are added (training and validation loss).
    The image is (3, h, w) uint8 in the channel order of INPUT.FORMAT; `height` and `width` are those of the
    letterboxed image, so that a model answers in the letterbox frame, and `original_size` is (height, width) of
    the radiograph.
    """

    def __init__(self, cfg: CfgNode, *, is_train: bool, with_truth: bool = True) -> None:
        seen = RandomLetterbox(cfg.INPUT.LETTERBOX, step=cfg.INPUT.LETTERBOX_STEP or None)
        self.augmentations = build_augmentations(cfg) if is_train else [seen]
        self.with_truth = with_truth
        self.channels = slice(None, None, -1) if cfg.INPUT.FORMAT == "BGR" else slice(None)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Raises UnreadableImage for a broken file, and ValueError when its size is not the recorded one."""
        result = copy.deepcopy(dataset_dict)
        annotations = result.pop("annotations", [])
        radiograph = read_radiograph(result["file_name"])
        if radiograph.size != (result["height"], result["width"]):
            raise ValueError(
                f"{result['file_name']}: the upright image is {radiograph.size} (height, width), "
                f"the data set says {(result['height'], result['width'])}"
            )
        xywh = np.array([annotation["bbox"] for annotation in annotations], dtype=np.float64).reshape(-1, 4)
        aug_input = T.AugInput(radiograph.pixels, boxes=np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]))
        T.AugmentationList(self.augmentations)(aug_input)
        image = aug_input.image[:, :, self.channels]
        result["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        result["original_size"] = radiograph.size
        result["height"], result["width"] = image.shape[:2]
        if self.with_truth:
            classes = np.array([annotation["category_id"] for annotation in annotations], dtype=np.int64)
            result["instances"] = _truth(aug_input.boxes, classes, image.shape[:2])
        return result


def _truth(boxes: np.ndarray, classes: np.ndarray, size: tuple[int, int]) -> Instances:
    """Boxes that a crop left outside are dropped; HonestCrop cuts none."""
    clipped = np.clip(boxes, 0, [size[1], size[0]] * 2)
    visible = box_area(clipped) > 0
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.as_tensor(clipped[visible], dtype=torch.float32))
    instances.gt_classes = torch.as_tensor(classes[visible])
    return instances


def build_sampler(
    dataset_dicts: Sequence[dict[str, Any]], cfg: CfgNode, *, seed: int
) -> TrainingSampler | RepeatFactorTrainingSampler:
    """Return the endless sampler of training images: shuffled, or with the share of fractured ones that cfg asks for.

    Raises CatalogError when a share is asked for and the data have no fractured or no healthy image.
    """
    share = cfg.DATALOADER.FRACTURED_SHARE
    if not share:
        return TrainingSampler(len(dataset_dicts), seed=seed)
    fractured = torch.tensor([bool(item["annotations"]) for item in dataset_dicts])
    n_fractured, n_healthy = int(fractured.sum()), int((~fractured).sum())
    if not n_fractured or not n_healthy:
        raise CatalogError(
            f"DATALOADER.FRACTURED_SHARE {share}: the training data have {n_fractured} fractured "
            f"and {n_healthy} healthy images; set it to 0"
        )
    n_images = len(dataset_dicts)
    factors = torch.where(fractured, share * n_images / n_fractured, (1 - share) * n_images / n_healthy)
    return RepeatFactorTrainingSampler(factors, seed=seed)
