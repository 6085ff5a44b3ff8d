#!/usr/bin/env python3
"""The experiment registry for shell scripts: should_run, start, complete, fail. Needs Python 3.9 and nothing else."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from latentwire.experiments.shell import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(default_runs=ROOT / "runs"))
