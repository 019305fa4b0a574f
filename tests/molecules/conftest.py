"""Lets the tests of molecules import the modules beside them, in processes they start too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
