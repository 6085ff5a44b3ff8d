#!/usr/bin/env bash
# Creates the virtual environment and installs LatentWire with its development tools. Runs on bash 3.2.
set -euo pipefail

venv=$1
wanted=$2

# the first Python of 3.11 or later: the one asked for, else what is there
python=""
for candidate in "$wanted" python3.11 python3.12 python3.13 python3; do
  if command -v "$candidate" >/dev/null 2>&1 &&
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "error: no Python 3.11 or later found; install one, or name it: make setup PYTHON=/path/to/python3.11" >&2
  exit 1
fi

if [ ! -x "$venv/bin/python" ]; then
  echo "creating $venv with $python"
  "$python" -m venv "$venv"
fi
echo "installing LatentWire (a minute or two)"
"$venv/bin/python" -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
