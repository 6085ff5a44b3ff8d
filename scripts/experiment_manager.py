#!/usr/bin/env python3
"""States, failures and re-runs of the experiments under runs/. Needs Python 3.9 and nothing else."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from latentwire.experiments.manager import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(default_runs=ROOT / "runs"))
