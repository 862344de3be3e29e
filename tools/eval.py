"""Evaluate a detector, or a file of predictions, on a data set with truth, and write a report fit for publication.

    .venv/bin/python tools/eval.py --detector shipped --data data/test.json --val data/val.json --images data/images \\
        --out output/eval
    .venv/bin/python tools/eval.py --predictions output/eval/predictions.jsonl --data data/test.json --out output/again

Same as `fracture-det eval`, whose --help gives the details.
"""

import sys

from fracture_det.cli.eval import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
