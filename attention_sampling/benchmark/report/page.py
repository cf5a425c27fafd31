"""A page of a report as a sequence of blocks, whatever it is written as."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Heading:
    """A title: of the page at level 1, of its sections at 2 and 3."""

    text: str
    level: int


@dataclass(frozen=True)
class Paragraph:
    """Text, without markup."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of short texts."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Cells under a header, each row of the same length."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @classmethod
    def of_cells(cls, title: str, rows: Sequence[Sequence[tuple[str, str]]]) -> "Table":
        """Return a table of rows of (column, text), at least one."""
        header = [column for column, _ in rows[0]]
        return cls(title, header, [[text for _, text in row] for row in rows])


@dataclass(frozen=True)
class Picture:
    """A PNG file that lies beside the page."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Commands:
    """Lines as they are typed."""

    lines: Sequence[str]


Block = Heading | Paragraph | Items | Table | Picture | Commands
