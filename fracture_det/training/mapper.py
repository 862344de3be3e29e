"""From a data set dict of Detectron2 to a model input."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances

from fracture_det.modeling.type_head import UNKNOWN
from fracture_det.structures.boxes import box_area
from fracture_det.structures.radiograph import read_radiograph
from fracture_det.training.augmentation import RandomLetterbox, build_augmentations


class FractureMapper:
    """Maps a data set dict to a model input: reads the radiograph, augments or letterboxes it, and adds its truth.

    is_train: with augmentation; else with the letterbox alone. with_instances: with the annotated boxes as Instances,
    which the losses of training and validation need,
    with their types of fracture where MODEL.TYPE_HEAD.NAMES names some.
    In the input, `image` is (3, h, w) uint8 in the channel order of INPUT.FORMAT; `height` and `width` are those of
    this image, so that a model predicts in the letterbox frame; `original_size` is (height, width) of the radiograph.
    """

    def __init__(self, cfg: CfgNode, *, is_train: bool, with_instances: bool = True) -> None:
        letterbox = RandomLetterbox(cfg.INPUT.LETTERBOX, step=cfg.INPUT.LETTERBOX_STEP or None)
        self.augmentations = build_augmentations(cfg) if is_train else [letterbox]
        self.with_instances = with_instances
        self.type_names = list(cfg.MODEL.TYPE_HEAD.NAMES)
        self.channels = slice(None, None, -1) if cfg.INPUT.FORMAT == "BGR" else slice(None)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Return the input. Raises UnreadableImage for a broken file, ValueError for another size than recorded."""
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
        if self.with_instances:
            classes = np.array([annotation["category_id"] for annotation in annotations], dtype=np.int64)
            kinds = self._types(annotations, result.get("type")) if self.type_names else {}
            result["instances"] = _instances(aug_input.boxes, classes, image.shape[:2], kinds)
        return result

    def _types(self, annotations: Sequence[Mapping[str, Any]], image_type: str | None) -> dict[str, np.ndarray]:
        """Return the types (M,) of the boxes and, for each of them, that of the radiograph; see TypedROIHeads."""
        index_of = {name: index for index, name in enumerate(self.type_names)}
        of_boxes = [index_of.get(annotation.get("type"), UNKNOWN) for annotation in annotations]
        of_image = [index_of.get(image_type, UNKNOWN)] * len(annotations)
        return {"gt_types": np.array(of_boxes, np.int64), "gt_image_types": np.array(of_image, np.int64)}


def _instances(
    boxes: np.ndarray, classes: np.ndarray, size: tuple[int, int], fields: Mapping[str, np.ndarray]
) -> Instances:
    """Return boxes (M, 4) x0 y0 x1 y1 as ground truth of an image of `size` (h, w), without those outside of it.

    fields: more of the ground truth by name, each (M,).
    """
    clipped = np.clip(boxes, 0, [size[1], size[0]] * 2)
    visible = box_area(clipped) > 0
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.as_tensor(clipped[visible], dtype=torch.float32))
    instances.gt_classes = torch.as_tensor(classes[visible])
    for name, values in fields.items():
        instances.set(name, torch.as_tensor(values[visible]))
    return instances
