"""`python -m fracture_det.cli` is the command `fracture-det`."""

import sys

from fracture_det.cli import main

sys.exit(main())
