"""What the terminal shows while a stack comes up, and what to do with it once it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_WIDTH = 160


class Screen:
    """Lines on standard output; a spinner too, where it is a terminal."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = _WIDTH  # a file or a pipe has room

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(escape(text), soft_wrap=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show that ``title`` is under way, then that it is done and how long it took."""
        begun = time.monotonic()
        with self.console.status(escape(title)):
            yield
        self.console.print(f"[green]✓[/] {escape(title):<34} [dim]{time.monotonic() - begun:4.1f} s[/]")

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """Print a table whose cells are never cut; where it is too wide, the second column is folded."""
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        for number, column in enumerate(columns):
            table.add_column(column, overflow="fold", no_wrap=number != 1)
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self.console.print(table)
