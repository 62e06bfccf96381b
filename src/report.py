"""Write the report: one self-contained HTML page.

    python src/report.py name=unet
"""

import sys

from histofold.cli import main

if __name__ == "__main__":
    sys.exit(main("report"))
