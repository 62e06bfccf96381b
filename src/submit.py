"""Write, validate and, when asked, send the submission.

    python src/submit.py name=unet
    python src/submit.py name=unet submit.send=true
"""

import sys

from histofold.cli import main

if __name__ == "__main__":
    sys.exit(main("submit"))
