"""Score out-of-fold predictions; tune and write an ensemble.

    python src/evaluate.py                          # the leaderboard of all runs
    python src/evaluate.py 'runs=[unet,fullnet]'    # their ensemble
"""

import sys

from histofold.cli import main

if __name__ == "__main__":
    sys.exit(main("evaluate"))
