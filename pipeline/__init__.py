"""The workflow: the runner of one job, the steps it can run, and what watches them."""

import sys
from pathlib import Path

# The library that runs is the one beside this folder, the one whose digests are in the keys,
# whatever is installed: an experiment runs in a copy of the repository, with the parent's packages.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
