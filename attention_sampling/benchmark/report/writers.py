"""Pages written as Markdown, HTML or reStructuredText."""

import base64
import html
import re
from collections.abc import Iterable, Sequence

from attention_sampling.benchmark.report.page import (
    Block,
    Commands,
    Heading,
    Items,
    Paragraph,
    Picture,
    Table,
)

_STYLE = """\
body { font: 16px/1.5 sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; margin: 1rem 0; }
caption { font-weight: bold; padding: 0.25rem 0; text-align: left; }
th, td { border-bottom: 1px solid #ccc; padding: 0.25rem 0.6rem; text-align: left; }
th { border-bottom: 2px solid #555; vertical-align: bottom; }
td { font-variant-numeric: tabular-nums; vertical-align: top; }
figure { margin: 1rem 0; }
img { height: auto; max-width: 100%; }
pre { background: #f4f4f4; overflow-x: auto; padding: 0.75rem; }"""


def to_markdown(blocks: Sequence[Block]) -> str:
    r"""Return a page as Markdown with tables as GitHub reads them.

    Example:

    >>> print(to_markdown([Heading("Cost", 2), Items(["2 * 3 MB"])]), end="")
    ## Cost
    <BLANKLINE>
    - 2 \* 3 MB
    """
    return _join(map(_markdown, blocks))


def to_html(blocks: Sequence[Block]) -> str:
    """Return a page as one HTML file with its pictures inside.

    Raises:
        OSError: a picture cannot be read.
    """
    titles = [block.text for block in blocks if isinstance(block, Heading)]
    head = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{html.escape(titles[0])}</title>" if titles else "<title></title>",
        f"<style>\n{_STYLE}\n</style>",
    ]
    return "\n".join([*head, *map(_html, blocks), "</html>"]) + "\n"


def to_rst(blocks: Sequence[Block]) -> str:
    """Return a page as reStructuredText, a document of its own for Sphinx."""
    return _join(map(_rst, blocks))


def _join(blocks: Iterable[str]) -> str:
    return "\n\n".join(blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {_escape(block.text, _MARKDOWN)}"
        case Paragraph():
            return _escape(block.text, _MARKDOWN)
        case Items():
            return "\n".join(f"- {_escape(text, _MARKDOWN)}" for text in block.texts)
        case Picture():
            caption = _escape(block.caption, _MARKDOWN)
            return f"![{caption}]({block.path.name})\n\n{caption}"
        case Commands():
            longest = max(map(len, re.findall("`+", "\n".join(block.lines))), default=0)
            fence = "`" * max(3, longest + 1)
            return "\n".join([f"{fence}console", *block.lines, fence])
        case Table():
            rows = [
                [_escape(cell, _MARKDOWN) for cell in block.header],
                ["---"] * len(block.header),
                *([_escape(cell, _MARKDOWN) for cell in row] for row in block.rows),
            ]
            lines = [f"| {' | '.join(row)} |" for row in rows]
            return "\n".join([f"**{_escape(block.title, _MARKDOWN)}**", "", *lines])


def _html(block: Block) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
        case Paragraph():
            return f"<p>{html.escape(block.text)}</p>"
        case Items():
            items = [f"<li>{html.escape(text)}</li>" for text in block.texts]
            return "\n".join(["<ul>", *items, "</ul>"])
        case Picture():
            caption = html.escape(block.caption)
            data = base64.b64encode(block.path.read_bytes()).decode()
            image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
            return f"<figure>\n{image}\n<figcaption>{caption}</figcaption>\n</figure>"
        case Commands():
            return f"<pre>{html.escape(chr(10).join(block.lines))}</pre>"
        case Table():
            header = "".join(f"<th>{html.escape(cell)}</th>" for cell in block.header)
            rows = [
                "".join(f"<td>{html.escape(_hold(cell))}</td>" for cell in row)
                for row in block.rows
            ]
            return "\n".join(
                [
                    "<div><table>",
                    f"<caption>{html.escape(block.title)}</caption>",
                    *(f"<tr>{cells}</tr>" for cells in (header, *rows)),
                    "</table></div>",
                ]
            )


def _rst(block: Block) -> str:
    match block:
        case Heading():
            text = _escape(block.text, _RST)
            return f"{text}\n{'=-~'[block.level - 1] * len(text)}"
        case Paragraph():
            return _escape(block.text, _RST)
        case Items():
            return "\n".join(f"- {_escape(text, _RST)}" for text in block.texts)
        case Picture():
            caption = _escape(block.caption, _RST)
            return f".. figure:: {block.path.name}\n   :alt: {caption}\n\n   {caption}"
        case Commands():
            lines = [f"   {line}" for line in block.lines]
            return "\n".join([".. code-block:: console", "", *lines])
        case Table():
            lines = [
                f".. list-table:: {_escape(block.title, _RST)}",
                "   :header-rows: 1",
                "   :widths: auto",
                "",
            ]
            for row in (block.header, *block.rows):
                cells = [f"- {_hold(_escape(cell, _RST))}".rstrip() for cell in row]
                lines += [f"   * {cells[0]}", *(f"     {cell}" for cell in cells[1:])]
            return "\n".join(lines)


def _hold(text: str) -> str:
    """Keep a number and what it is of on one line, in narrow columns too."""
    return re.sub(r"(?<=\d) (?=ms\b|MB\b)|(?<=±) (?=\d)", "\u00a0", text)


# Characters that are markup anywhere in a text.
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|&~]")
_RST = re.compile(r"[\\`*_|]")
# What begins a list, a title or a directive where it stands first.
_FIRST = re.compile(r"[^\w\\]|\w{1,9}[.)](?=\s|$)")


def _escape(text: str, markup: "re.Pattern[str]") -> str:
    """Return a text of one line that shows as it is."""
    text = markup.sub(r"\\\g<0>", " ".join(text.split()))
    if found := _FIRST.match(text):
        end = found.end() - 1  # the mark itself; a letter takes no backslash
        text = f"{text[:end]}\\{text[end:]}"
    return text
