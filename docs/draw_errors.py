"""Draw weights/shipped/errors.png: four radiographs on which the shipped detector is wrong, the worst of each kind.

    .venv/bin/python docs/draw_errors.py --report output/report_sources --data output/pooled/test.json \\
        --images output/pooled/images

reads the predictions of an evaluation. The worst are the healthy film and the healthy close-up with the highest score,
and the two fractured films with the lowest; nothing is chosen by hand.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle

sys.path.insert(0, str(Path(__file__).parents[1]))

from fracture_det.data.coco import read_coco
from fracture_det.data.pooling import SOURCE
from fracture_det.data.predictions import align, read_predictions
from fracture_det.structures.radiograph import read_radiograph
from fracture_det.visualization.style import COLOURS, FULL_IN, figure_style, format_share, new_figure, save

TARGET = Path(__file__).parents[1] / "weights" / "shipped" / "errors.png"
FILMS, CLOSEUPS = "fracatlas", "healthy_closeups"
SHOWN = 3  # boxes of a picture


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, required=True, help="folder of an evaluation, with predictions.jsonl")
    parser.add_argument("--data", type=Path, required=True, help="what it was of: test.json of a pooled data set")
    parser.add_argument("--images", type=Path, required=True, help="its image folder")
    parser.add_argument("--out", type=Path, default=TARGET, help=f"the picture (default: {TARGET.name})")
    return parser


def main() -> None:
    """Write the picture."""
    args = build_parser().parse_args()
    dataset = read_coco(args.data)
    detections = align(read_predictions(args.report / "predictions.jsonl"), dataset).detections

    def top(record):
        return max(detections[record.image_id].scores, default=0.0)

    def of(source, fractured):
        chosen = [r for r in dataset if r.attributes[SOURCE] == source and bool(len(r.boxes)) is fractured]
        return sorted(chosen, key=top)

    worst = [
        ("healthy film", of(FILMS, False)[-1]),
        ("healthy close-up", of(CLOSEUPS, False)[-1]),
        *(("fractured film", record) for record in of(FILMS, True)[:2]),
    ]
    with figure_style():
        figure = new_figure(FULL_IN, 2.7)
        for panel, (kind, record) in zip(figure.subplots(1, len(worst)), worst, strict=True):
            panel.imshow(read_radiograph(args.images / record.file_name).pixels)
            draw(panel, record, detections[record.image_id])
            panel.set_title(f"{kind}, {format_share(top(record), 2)}")
            panel.set_axis_off()
        save(figure, args.out)
    print(f"{args.out}: {', '.join(record.file_name for _, record in worst)}")


def draw(panel, record, found):
    """Draw the marked boxes dashed, and the detector's best with their scores."""
    for x0, y0, x1, y1 in record.boxes:
        panel.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=COLOURS[2], lw=1.2, ls="--"))
    for index in np.argsort(-np.asarray(found.scores))[:SHOWN]:
        x0, y0, x1, y1 = found.boxes[index]
        panel.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=COLOURS[1], lw=1))
        panel.text(x0, y0 - 2, format_share(found.scores[index], 2), color="white", fontsize=6)


if __name__ == "__main__":
    main()
