"""Source text that is written line by line."""

from __future__ import annotations


class SourceText:
    """Lines at a depth of blocks.

    indent  what each level adds
    """

    def __init__(self, indent: str, opened: int = 1):
        self.lines: list[str] = []
        self.indent, self.depth = indent, opened

    def write(self, line: str) -> None:
        """One line at the current depth."""
        self.lines.append(self.indent * self.depth + line)

    def open(self, line: str) -> None:
        """A line that begins a block."""
        self.write(line)
        self.depth += 1

    def close(self, line: str = "") -> None:
        """End the block, with a line if the language wants one."""
        self.depth -= 1
        if line:
            self.write(line)
