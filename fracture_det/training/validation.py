"""What a trainer measures on the validation images: COCO's AP and the losses."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from fracture_det.inference.detectron2 import undo_letterbox
from fracture_det.structures.letterbox import Letterbox


class LetterboxCOCOEvaluator(COCOEvaluator):
    """COCO evaluation in original pixels of a model that answers in the letterbox frame."""

    def __init__(self, dataset_name: str, letterbox: Letterbox) -> None:
        super().__init__(dataset_name, tasks=("bbox",), use_fast_impl=False)
        self.letterbox = letterbox

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take the answers of one batch."""
        undone = []
        for item, output in zip(inputs, outputs, strict=True):
            found = undo_letterbox(output["instances"], self.letterbox, item["original_size"])
            instances = Instances(item["original_size"])
            instances.pred_boxes = Boxes(torch.tensor(found.boxes))
            instances.scores = torch.tensor(found.scores)
            instances.pred_classes = torch.tensor(found.classes)
            undone.append({"instances": instances})
        super().process(inputs, undone)


def validation_losses(model: torch.nn.Module, loader: Iterable[list[dict]]) -> dict[str, float]:
    """Return the mean of every training loss over the images of `loader`, and `validation_loss`, their sum.

    The losses sample proposals at random; their seed is fixed, so that evaluations are comparable. All processes
    take part and get the same answer.
    """
    sums: dict[str, float] = {}
    n_images = 0
    was_training = model.training
    model.train()
    with torch.no_grad(), torch.random.fork_rng(), EventStorage():
        torch.manual_seed(0)
        for batch in loader:
            n_images += len(batch)
            for key, value in model(batch).items():
                sums[key] = sums.get(key, 0.0) + float(value) * len(batch)
    model.train(was_training)
    gathered = comm.all_gather((sums, n_images))
    total = max(1, sum(count for _, count in gathered))
    keys = sorted({key for part, _ in gathered for key in part})
    means = {f"validation_{key}": sum(part.get(key, 0.0) for part, _ in gathered) / total for key in keys}
    return {"validation_loss": sum(means.values()), **means}
