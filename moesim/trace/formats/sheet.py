"""What every reader of arrivals shares: requests come in line by line, and each mistake goes to its line."""

from __future__ import annotations

import re
from decimal import Decimal

from moesim.errors import InputError, Problem

MOST_TOLD = 20
"""mistakes of one file that are listed; the rest are counted"""
MOST_TOKENS = 10**7
"""of one prompt or output: more is a mistake of units"""
LATEST_NS = 2**62
WHOLE = re.compile(r"([+-]?)0*([0-9]+)")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,9})?")
TEMPORARY = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""ns in a unit of time"""


class Sheet:
    """Requests in the order of their lines. `add` checks what no format may break: order, signs, sizes.

    `drop_empty` leaves requests without prompt or output tokens out and counts them; else they are mistakes.
    """

    def __init__(self, place: str, drop_empty: bool = False) -> None:
        self.place, self.drop_empty = place, drop_empty
        self.times: list[int] = []
        self.prompts: list[int] = []
        self.outputs: list[int] = []
        self.domains: list[str] = []
        self.dropped = 0
        self._problems: list[Problem] = []
        self._untold = 0
        self._last: tuple[int, str, int] | None = None

    def wrong(self, line: int, text: str) -> None:
        """Note a mistake; `line` counts from 1, 0 is the file as a whole."""
        if len(self._problems) < MOST_TOLD:
            self._problems.append(Problem(f"{self.place}:{line}" if line else self.place, text))
        else:
            self._untold += 1

    def add(self, line: int, time: int | None, prompt: int | None, output: int | None, told: str, domain: str) -> None:
        """A request; None stands for a value that was wrong and has been noted. `told` is its time as written."""
        if time is not None:
            self._check_time(line, time, told)
        if prompt is None or output is None or time is None or not self._has_tokens(line, prompt, output):
            return
        self.times.append(time)
        self.prompts.append(prompt)
        self.outputs.append(output)
        self.domains.append(domain)

    def finish(self, lines: int) -> None:
        """Raise InputError with what was wrong in the file of so many lines, if anything was."""
        if not self._problems and not self.times:
            left_out = f": all {self.dropped} have no prompt or no output tokens" if self.dropped else ""
            self.wrong(lines, f"holds no requests up to its end{left_out}")
        if self._untold:
            self._problems.append(Problem(self.place, f"{self._untold:,} more mistakes are not listed"))
        if self._problems:
            raise InputError(self._problems)

    def tokens(self, line: int, text: str, name: str) -> int | None:
        """A number of tokens, 0 or more; `name` is its column."""
        match = WHOLE.fullmatch(text)
        if not match:
            self.wrong(line, f"{name} {_short(text)} must be a whole number of tokens")
            return None
        sign, digits = match.groups()
        value = int(digits[:19])  # longer ones are too large in any case
        if value > MOST_TOKENS or (value and sign == "-"):
            self.wrong(line, f"{name} {_short(text)} must be 1 to {MOST_TOKENS:,} tokens")
            return None
        return value

    def time(self, line: int, text: str, name: str, unit: str) -> int | None:
        """ns of a time in `unit`, exact in decimals."""
        if not NUMBER.fullmatch(text):
            self.wrong(line, f"{name} {_short(text)} must be a number ({unit} from the start of the trace)")
            return None
        value = Decimal(text)
        if not -LATEST_NS <= value <= LATEST_NS:  # in any unit; what is far larger cannot be multiplied
            return LATEST_NS + 1 if value > 0 else -1
        return round(value * TEMPORARY[unit])

    def _check_time(self, line: int, time: int, told: str) -> None:
        told = told if len(told) <= 40 else f"{told[:37]}..."
        if time < 0:
            self.wrong(line, f"time {told} is negative; times count from the start of the trace")
        elif time > LATEST_NS:
            self.wrong(line, f"time {told} is more than a century; is its unit right?")
        else:
            if self._last is not None and time < self._last[0]:
                _, before, above = self._last
                self.wrong(line, f"time {told} is before {before} in line {above}; requests must be sorted by time")
            self._last = (time, told, line)

    def _has_tokens(self, line: int, prompt: int, output: int) -> bool:
        if prompt and output:
            return True
        if self.drop_empty:
            self.dropped += 1
        else:
            what = "prompt" if not prompt else "output"
            self.wrong(line, f"0 {what} tokens; a request needs at least 1 (`empty: drop` leaves such requests out)")
        return False


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
