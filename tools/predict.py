"""Find fractures on a radiograph, in a folder with its subfolders, or on the files of a pattern.

    .venv/bin/python tools/predict.py --input xrays/ --out output/predicted
    .venv/bin/python tools/predict.py --detector d2:output/run --input 'xrays/**/*.png' --out output/predicted
    .venv/bin/python tools/predict.py --calibration output/eval/calibration.json --input xrays/ --out output/predicted

    .venv/bin/python tools/predict.py --input xrays/ --out output/predicted --resume --no-overlays --parquet
    .venv/bin/python tools/predict.py --input xrays/ --out output/predicted --shard 2/5
    .venv/bin/python tools/predict.py --join --out output/predicted
    .venv/bin/python tools/predict.py --input xrays/ --out output/predicted --engine ray --workers 4

Same as `fracture-det predict`, whose --help gives the details.
"""

import sys

from fracture_det.cli.predict import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
