"""Where a result comes from: code revision, package versions."""

from __future__ import annotations

import platform
import re
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "datasets", "numpy")


def git_state() -> dict[str, object]:
    """Commit and dirty flag of the checkout this code runs from; None where it is no checkout."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", "--", str(Path(__file__).resolve())) is None:
        return {"commit": None, "dirty": None}  # installed: the checkout around it, if any, is another project's
    # results that were just written make no other code
    status = git("status", "--porcelain", "--", ".", ":(exclude)runs")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def versions() -> dict[str, str]:
    """Python, LatentWire and the packages that decide numbers."""
    import latentwire

    found = {"python": platform.python_version(), "latentwire": latentwire.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def processor_name() -> str:
    """The processor's name as its maker has it; empty where the system does not say."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return found[1].strip() if found else ""
    except OSError:
        pass
    try:
        asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
