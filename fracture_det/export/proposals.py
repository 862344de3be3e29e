"""Proposals of a region proposal network, as Detectron2 makes them, in an order that costs an exported graph less."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, ImageList, Instances


def propose(rpn: Any, images: ImageList, features: Mapping[str, torch.Tensor]) -> list[Instances]:
    """Return what Detectron2's `RPN` answers in inference, with `proposal_boxes` and `objectness_logits` per image.

    Detectron2 decodes the boxes of all anchors of a level (120,000 on an 800 px image) and sorts all scores before it
    takes the best 500; here the best are chosen first, without sorting the rest, and they alone are decoded.
    """
    levels = list(_best_of_levels(rpn, features))
    scores = torch.cat([scores for scores, _ in levels], 1)
    boxes = torch.cat([boxes for _, boxes in levels], 1)
    level = torch.cat([torch.full_like(own[0], index) for index, (own, _) in enumerate(levels)])
    each = zip(boxes, scores, images.image_sizes, strict=True)
    return [_without_repeats(rpn, own, scored, level, size) for own, scored, size in each]


def _best_of_levels(rpn: Any, features: Mapping[str, torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield scores (N, K) and boxes (N, K, 4) XYXY px of each level's best anchors, best first."""
    maps = [features[name] for name in rpn.in_features]
    # Per level: anchors (H W A, 4), logits (N, A, H, W), deltas (N, A 4, H, W).
    for anchors, logits, deltas in zip(rpn.anchor_generator(maps), *rpn.rpn_head(maps), strict=True):
        n_images, n_anchors, height, width = logits.shape
        flat = logits.permute(0, 2, 3, 1).flatten(1)
        scores, index = largest(flat, rpn.pre_nms_topk[False])
        sides = deltas.view(n_images, n_anchors, 4, height, width).permute(0, 3, 4, 1, 2).flatten(1, 3)
        chosen = sides.gather(1, index[:, :, None].expand(-1, -1, 4))
        boxes = rpn.box2box_transform.apply_deltas(chosen.flatten(0, 1), anchors.tensor[index.flatten()])
        yield scores, boxes.view(n_images, -1, 4)


def _without_repeats(
    rpn: Any, boxes: torch.Tensor, scores: torch.Tensor, level: torch.Tensor, size: tuple[int, int]
) -> Instances:
    """Return the best of boxes (M, 4) on an image of `size` (h, w), after suppression within each level."""
    found = Boxes(boxes)
    found.clip(size)
    kept = found.nonempty(threshold=rpn.min_box_size)
    found, scores = found[kept], scores[kept]
    best = batched_nms(found.tensor, scores, level[kept], rpn.nms_thresh)[: rpn.post_nms_topk[False]]
    return Instances(size, proposal_boxes=found[best], objectness_logits=scores[best])


def largest(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `count` largest of `scores` (N, M), or all, and where they stand, both (N, count), largest first.

    As torch.topk, in about a tenth of the comparisons for large M: the `count` largest lie in the `count` groups with
    the largest maxima, and only what is in these is compared one by one. A traced graph keeps the length of the groups,
    which then suits some M better than others; what it returns is right for each.
    """
    n_rows, length = scores.shape
    group = max(1, round(math.sqrt(length / count)))  # makes both steps equally long
    n_groups = (length + group - 1) // group
    padded = torch.nn.functional.pad(scores, (0, group - 1), value=-math.inf)[:, : n_groups * group]
    grouped = padded.view(n_rows, -1, group)
    _, groups = grouped.amax(2).topk(_at_most(n_groups, count), 1)
    candidates = grouped.gather(1, groups[:, :, None].expand(-1, -1, group)).flatten(1)
    best, place = candidates.topk(_at_most(length, count), 1)
    return best, groups.gather(1, place.div(group, rounding_mode="floor")) * group + place % group


def _at_most(number: Any, limit: int) -> Any:
    """Return the lesser of both; in tracing a number is a tensor, which `min` would make a constant."""
    return number.clamp(max=limit) if isinstance(number, torch.Tensor) else min(number, limit)
