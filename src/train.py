"""Train one fold, or several with -m, and predict the samples that each has not seen.

    python src/train.py competition=dsb2018 model=unet fold=0
    python src/train.py -m fold=0,1,2,3,4
"""

import sys

from histofold.cli import main

if __name__ == "__main__":
    sys.exit(main("train"))
