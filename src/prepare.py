"""Raw competition files become folds.csv and a memory-mapped store.

    python src/prepare.py competition=dsb2018
    python src/prepare.py -m shard=0/4,1/4,2/4,3/4
"""

import sys

from histofold.cli import main

if __name__ == "__main__":
    sys.exit(main("prepare"))
