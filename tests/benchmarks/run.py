"""Runs every benchmark of this folder, each in a process of its own with one thread.

    python tests/benchmarks/run.py [NAME ...]

A benchmark is a module here that starts with ``python NAME.py`` (it has a ``__main__`` block), without
arguments. Exits with 1 when one fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def benchmarks() -> dict[str, Path]:
    """The runnable modules by name; the others are parts of them."""
    modules = sorted(path for path in HERE.glob("*.py") if path.name != Path(__file__).name)
    return {path.stem: path for path in modules if 'if __name__ == "__main__":' in path.read_text()}


def main() -> int:
    """Run the named benchmarks, or all, one after the other; what they print goes through."""
    found = benchmarks()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(found)}")
    names = parser.parse_args().names or list(found)
    if unknown := sorted(set(names) - set(found)):
        parser.error(f"no benchmark named {', '.join(unknown)}; there are {', '.join(found)}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, str(found[name])], env=environment, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
