"""Draws the lines of standard input on a page of paper, for trying scan_search.py: `page.py page.png`."""

import sys

from PIL import Image, ImageDraw, ImageFont

SIZE, MARGIN, WIDTH_MIN = 36, 70, 1000
"""As a scan with 120 dots an inch has it. With much smaller letters the reader misses spaces."""

lines = sys.stdin.read().splitlines()
font = ImageFont.load_default(SIZE)
width = max(WIDTH_MIN, *(int(font.getlength(line)) + 2 * MARGIN for line in lines))
height = max(int(width * 2**0.5), 2 * SIZE * len(lines) + 2 * MARGIN)
page = Image.new("RGB", (width, height), "white")
draw = ImageDraw.Draw(page)
for number, line in enumerate(lines):
    draw.text((MARGIN, MARGIN + 2 * SIZE * number), line, "black", font)
page.save(sys.argv[1])
