"""Metrics on the validation images during training: COCO's AP and the losses."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from fracture_det.inference.detectron2 import undo_letterbox
from fracture_det.modeling.architectures.base import Architecture
from fracture_det.structures.letterbox import Letterbox


class LetterboxCOCOEvaluator(COCOEvaluator):
    """COCO evaluation, in original pixels, of a model whose boxes are in the letterbox frame."""

    def __init__(self, dataset_name: str, letterbox: Letterbox) -> None:
        super().__init__(dataset_name, tasks=("bbox",), use_fast_impl=False)
        self.letterbox = letterbox

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Add the predictions `outputs` for one batch of model inputs."""
        in_original_pixels = []
        for item, output in zip(inputs, outputs, strict=True):
            detections = undo_letterbox(output["instances"], self.letterbox, item["original_size"])
            instances = Instances(item["original_size"])
            instances.pred_boxes = Boxes(torch.tensor(detections.boxes))
            instances.scores = torch.tensor(detections.scores)
            instances.pred_classes = torch.tensor(detections.classes)
            in_original_pixels.append({"instances": instances})
        super().process(inputs, in_original_pixels)


def validation_losses(model: torch.nn.Module, loader: Iterable[list[dict]]) -> dict[str, float]:
    """Return {"validation_" + name: mean over the images of `loader`} of every training loss, and `validation_loss`.

    `validation_loss` is their sum. The losses sample proposals at random, here from a fixed seed, so that evaluations
    are comparable; batch norm and dropout act as in prediction. Every process of a distributed training must call this,
    and all get the same values.
    """
    sums: dict[str, float] = {}
    n_images = 0
    was_training = model.training
    model.train()
    if isinstance(model, Architecture):  # whose losses depend on its own mode alone
        for part in model.children():
            part.eval()
    with torch.no_grad(), torch.random.fork_rng(), EventStorage():
        torch.manual_seed(0)
        for batch in loader:
            n_images += len(batch)
            for key, value in model(batch).items():
                sums[key] = sums.get(key, 0.0) + float(value) * len(batch)
    model.train(was_training)
    of_all_processes = comm.all_gather((sums, n_images))
    total = max(1, sum(count for _, count in of_all_processes))
    keys = sorted({key for sums, _ in of_all_processes for key in sums})
    means = {f"validation_{key}": sum(sums.get(key, 0.0) for sums, _ in of_all_processes) / total for key in keys}
    return {"validation_loss": sum(means.values()), **means}
