"""Lines and columns of text files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from moesim.errors import InputError, Problem
from moesim.trace.importers.options import at_lines


def lines_of(path: Path, data: bytes) -> list[str]:
    """The lines of a UTF-8 file. Raises InputError naming the line that is not."""
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        text = f"is no UTF-8 text (byte {data[error.start]:#04x}); expected a text file"
        raise InputError(Problem(f"{path}:{line}", text)) from error


def comment_pairs(lines: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and `key=value` pairs of each comment line ('# layers=48 experts=128')."""
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            yield number, dict(word.split("=", 1) for word in line[1:].split() if "=" in word)


class Columns:
    """The rows of a CSV as columns; comment lines and blank lines are left out. Mistakes gather in `problems`."""

    def __init__(self, path: Path, lines: Sequence[str], header: Sequence[str] | None = None) -> None:
        self.path = path
        self.problems: list[Problem] = []
        numbered = [(n, text) for n, text in enumerate(lines, 1) if text.strip() and not text.startswith("#")]
        rows = list(csv.reader([text for _, text in numbered]))
        numbers = [n for n, _ in numbered]
        if header is None:
            self.names = [name.strip() for name in rows[0]] if rows else []
            rows, numbers = rows[1:], numbers[1:]
        else:
            self.names = list(header)
        right = [len(row) == len(self.names) for row in rows]
        if not all(right):
            wrong = [n for n, good in zip(numbers, right, strict=True) if not good]
            self.problems += at_lines(path, wrong, f"expected {len(self.names)} columns: {','.join(self.names)}")
            rows = [row for row, good in zip(rows, right, strict=True) if good]
            numbers = [n for n, good in zip(numbers, right, strict=True) if good]
        self.line = np.array(numbers, dtype=np.int64)
        self._columns = dict(zip(self.names, zip(*rows, strict=True), strict=True)) if rows else {}

    def __len__(self) -> int:
        return len(self.line)

    def text(self, name: str) -> list[str]:
        return [value.strip() for value in self._columns.get(name, ())]

    def integers(self, name: str, empty: int | None = None) -> np.ndarray:
        """int64 [rows]; `empty` stands for an empty cell, if one may be."""
        return self._numbers(name, int, np.int64, -1 if empty is None else empty, empty is not None).astype(np.int64)

    def reals(self, name: str) -> np.ndarray:
        """float64 [rows]; NaN for an empty cell."""
        return self._numbers(name, float, np.float64, float("nan"), True)

    def _numbers(self, name: str, kind: type, dtype: type, empty: float, may_be_empty: bool) -> np.ndarray:
        cells = self._columns.get(name, ())
        try:
            return np.array(cells, dtype=np.str_).astype(dtype) if cells else np.zeros(0, dtype)
        except ValueError:
            pass
        values, wrong = [], []
        for line, cell in zip(self.line.tolist(), cells, strict=True):
            try:
                values.append(empty if may_be_empty and not cell.strip() else kind(cell))
            except ValueError:
                values.append(empty)
                wrong.append(line)
        what = "a whole number" if kind is int else "a number"
        self.problems += at_lines(self.path, wrong, f"column {name!r} must hold {what}")
        return np.array(values, dtype=dtype)

    def codes(self, name: str, known: dict[str, int]) -> np.ndarray:
        """int64 [rows]: the code of each word; unknown words are problems."""
        words = self.text(name)
        wrong = [line for line, word in zip(self.line.tolist(), words, strict=True) if word not in known]
        text = f"column {name!r} must hold one of {', '.join(filter(None, known))}"
        self.problems += at_lines(self.path, wrong, text)
        return np.array([known.get(word, -1) for word in words], dtype=np.int64)

    def check(self) -> None:
        """Raises InputError with the problems so far, if there are any."""
        if self.problems:
            raise InputError(self.problems)
