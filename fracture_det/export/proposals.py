"""Proposals of a region proposal network: the same as Detectron2's, with less arithmetic in an exported graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, ImageList, Instances


def predict_proposals(rpn: Any, images: ImageList, features: Mapping[str, torch.Tensor]) -> list[Instances]:
    """Return what Detectron2's `RPN` returns in inference: `proposal_boxes` and `objectness_logits` per image.

    Detectron2 decodes the boxes of all anchors of a level (120,000 on an 800 px image) and sorts all scores before it
    keeps the best 500; here the best are selected first, without sorting the rest, and only they are decoded.
    """
    levels = list(_topk_per_level(rpn, features))
    scores = torch.cat([scores for scores, _ in levels], 1)
    boxes = torch.cat([boxes for _, boxes in levels], 1)
    level = torch.cat([torch.full_like(level_scores[0], index) for index, (level_scores, _) in enumerate(levels)])
    return [
        _suppress_per_level(rpn, image_boxes, image_scores, level, size)
        for image_boxes, image_scores, size in zip(boxes, scores, images.image_sizes, strict=True)
    ]


def _topk_per_level(rpn: Any, features: Mapping[str, torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield scores (N, K) and boxes (N, K, 4) XYXY px of each level's best anchors, best first."""
    maps = [features[name] for name in rpn.in_features]
    # Per level: anchors (H W A, 4), logits (N, A, H, W), deltas (N, A 4, H, W).
    for anchors, logits, deltas in zip(rpn.anchor_generator(maps), *rpn.rpn_head(maps), strict=True):
        n_images, n_anchors, height, width = logits.shape
        scores, index = grouped_topk(logits.permute(0, 2, 3, 1).flatten(1), rpn.pre_nms_topk[False])
        deltas = deltas.view(n_images, n_anchors, 4, height, width).permute(0, 3, 4, 1, 2).flatten(1, 3)
        best_deltas = deltas.gather(1, index[:, :, None].expand(-1, -1, 4))
        boxes = rpn.box2box_transform.apply_deltas(best_deltas.flatten(0, 1), anchors.tensor[index.flatten()])
        yield scores, boxes.view(n_images, -1, 4)


def _suppress_per_level(
    rpn: Any, boxes: torch.Tensor, scores: torch.Tensor, level: torch.Tensor, size: tuple[int, int]
) -> Instances:
    """Return the best of boxes (M, 4) on an image of `size` (h, w), after NMS within each level."""
    clipped = Boxes(boxes)
    clipped.clip(size)
    nonempty = clipped.nonempty(threshold=rpn.min_box_size)
    clipped, scores = clipped[nonempty], scores[nonempty]
    kept = batched_nms(clipped.tensor, scores, level[nonempty], rpn.nms_thresh)[: rpn.post_nms_topk[False]]
    return Instances(size, proposal_boxes=clipped[kept], objectness_logits=scores[kept])


def grouped_topk(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `count` largest of `scores` (N, M), or all M, and their indices, both (N, count), largest first.

    The same as torch.topk, with about a tenth of the comparisons for large M: the `count` largest lie in the `count`
    groups with the largest maxima, and only the members of these are compared one by one. A traced graph keeps the
    length of the groups of its example, which is fastest for similar M and correct for any.
    """
    n_rows, length = scores.shape
    group = max(1, round(math.sqrt(length / count)))  # makes both topk equally long
    n_groups = (length + group - 1) // group
    padded = torch.nn.functional.pad(scores, (0, group - 1), value=-math.inf)[:, : n_groups * group]
    grouped = padded.view(n_rows, -1, group)
    _, groups = grouped.amax(2).topk(_minimum(n_groups, count), 1)
    candidates = grouped.gather(1, groups[:, :, None].expand(-1, -1, group)).flatten(1)
    best, position = candidates.topk(_minimum(length, count), 1)
    return best, groups.gather(1, position.div(group, rounding_mode="floor")) * group + position % group


def _minimum(number: Any, limit: int) -> Any:
    """Return min(number, limit); while tracing, `number` is a tensor, which `min` would turn into a constant."""
    return number.clamp(max=limit) if isinstance(number, torch.Tensor) else min(number, limit)
