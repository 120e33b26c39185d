"""What a program wrote on a terminal, as an SVG without style sheets, fonts or addresses of other files.

Rich's own `export_svg` has its colours in a style sheet, which some viewers ignore, and names a font at an address.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
FONT_SIZE, CELL_WIDTH, LINE_HEIGHT = 14, 8.43, 20
MARGIN, TITLE_HEIGHT = 16, 36
BACKGROUND, FRAME, PLAIN, DIM = "#161b22", "#6e7681", "#e6edf3", "#9da7b3"
# Contrast with the background is 4.5:1 or more.
THEME = TerminalTheme(
    (22, 27, 34),
    (230, 237, 243),
    [
        (139, 148, 158),  # black: grey, so that it can be read
        (255, 123, 114),
        (86, 211, 100),
        (227, 179, 65),
        (121, 192, 255),
        (210, 168, 255),
        (86, 212, 221),
        (230, 237, 243),
    ],
)


def svg_of(written: str, command: str, columns: int) -> str:
    """Return a terminal window of so many columns, with the command in its title bar and what it wrote below.

    Every word has a place of its own, so that columns are straight in any font. The window has a background of its own,
    so that it can be read on light and on dark pages.
    """
    lines = list(Text.from_ansi(written.rstrip()).split("\n"))
    width = round(2 * MARGIN + columns * CELL_WIDTH)
    height = TITLE_HEIGHT + 2 * MARGIN + LINE_HEIGHT * len(lines)
    words = [word for number, line in enumerate(lines) for word in _words(line, number)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" font-family="{FONT}" font-size="{FONT_SIZE}">',
            f"<title>{escape(command)}</title>",
            f"<desc>{escape(Text.from_ansi(written.rstrip()).plain)}</desc>",
            f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8" '
            f'fill="{BACKGROUND}" stroke="{FRAME}"/>',
            f'<path d="M0.5 {TITLE_HEIGHT}H{width - 0.5}" stroke="{FRAME}"/>',
            f'<text x="{MARGIN}" y="{TITLE_HEIGHT - 13}" fill="{DIM}">$ {escape(command)}</text>',
            *words,
            "</svg>\n",
        ]
    )


def _words(line: Text, number: int) -> Iterator[str]:
    y = TITLE_HEIGHT + MARGIN + LINE_HEIGHT * number + FONT_SIZE
    for start, end, style in _runs(line):
        for word in re.finditer(r"\S+(?: \S+)*", line.plain[start:end]):
            x = MARGIN + (start + word.start()) * CELL_WIDTH
            weight = ' font-weight="bold"' if style.bold else ""
            yield f'<text x="{x:.1f}" y="{y}" fill={quoteattr(_colour(style))}{weight}>{escape(word[0])}</text>'


def _runs(line: Text) -> Iterator[tuple[int, int, Style]]:
    """Split a line where its style changes."""
    edges = sorted({0, len(line), *(edge for span in line.spans for edge in (span.start, span.end))})
    for start, end in pairwise(edges):
        styles = [span.style for span in line.spans if span.start <= start < span.end]
        yield start, end, sum((style for style in styles if isinstance(style, Style)), Style())


def _colour(style: Style) -> str:
    if style.color is None:
        return DIM if style.dim else PLAIN
    return style.color.get_truecolor(THEME).hex
