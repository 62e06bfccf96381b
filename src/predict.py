"""Predict the test set, or any folder of images, with an ensemble.

    python src/predict.py name=unet
    python src/predict.py images=FOLDER
"""

import sys

from histofold.cli import main

if __name__ == "__main__":
    sys.exit(main("predict"))
