"""Slides of any TIFF layout: windows and full-width bands at any reduction, in bounded memory.

    with slides.open("slide.tiff") as slide:
        corner = slide.window(0, 0, 1024, 1024, scale=4)        # (256, 256, 3) uint8 RGB
        for first_row, band in slide.bands(512, scale=4):        # (512, width / 4, 3), top to bottom
            ...
"""

from histofold.slides.slide import Slide, open, thumbnail  # noqa: A004  (slides.open is what it is)

__all__ = ["Slide", "open", "thumbnail"]
