#!/usr/bin/env python3
"""The experiment registry for shell scripts: should_run, start, complete, fail. Needs Python 3.9 and nothing else."""

import sys
from pathlib import Path

if sys.version_info < (3, 9):  # noqa: UP036 -- login nodes have old ones, which would end in a traceback
    sys.exit(f"error: this needs Python 3.9 or later, this is {sys.version_info[0]}.{sys.version_info[1]}; try python3.11")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from latentwire.experiments.shell import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(default_runs=ROOT / "runs"))
