"""The link between host and device: what one copy takes (docs/costs.md)."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from pathlib import Path

from moesim.errors import InputError, Problem
from moesim.hardware.files import LinkFile, Speed, read

SECOND = 10**9


class Times:
    """Time of a copy in one direction: a formula, or measured points."""

    def __init__(self, speed: Speed) -> None:
        self._bytes = [point[0] for point in speed.points]
        self._ns = [point[1] for point in speed.points]
        if speed.points:
            self.fixed_ns = self._ns[0]
            self.bytes_per_second = (self._bytes[-1] - self._bytes[-2]) * SECOND // (self._ns[-1] - self._ns[-2])
        else:
            self.fixed_ns, self.bytes_per_second = speed.fixed_ns or 0, speed.bytes_per_second or 1

    def of(self, bytes: int) -> int:
        """Nanoseconds of one copy of `bytes`, its fixed cost included, rounded up.

        Measured points are joined by lines. A copy below the first point takes as long as that one; above the last it
        goes on at the speed between the last two, which an experiment must allow (see `LinkTable.most`).
        """
        if not self._bytes:
            return self.fixed_ns - (-bytes * SECOND // self.bytes_per_second)
        if bytes <= self._bytes[0]:
            return self.fixed_ns
        low = min(bisect_right(self._bytes, bytes) - 1, len(self._bytes) - 2)
        width, rise = self._bytes[low + 1] - self._bytes[low], self._ns[low + 1] - self._ns[low]
        return self._ns[low] - (-(bytes - self._bytes[low]) * rise // width)


class LinkTable:
    """Time of one copy, integer nanoseconds.

    Attributes: name, label, device, digest, pinned; `fixed_ns` and `bytes_per_second` to the device (of measured
    points: the first point's time, and the slope of the last two); `both_ways`: how many times as long a copy to the
    device, and one to the host, takes while the other direction is busy (exact, as the file has them in decimals).
    """

    def __init__(self, file: LinkFile, speed: Speed, digest: str = "", *, pinned: bool = True) -> None:
        self.file, self.speed, self.digest, self.pinned = file, speed, digest, pinned
        self.name, self.label, self.device = file.name, file.label, file.device
        times = Times(speed)
        self.copy = times.of
        """nanoseconds of one copy of so many bytes to the device (see `Times.of`)"""
        self.fixed_ns, self.bytes_per_second = times.fixed_ns, times.bytes_per_second
        self.to_host = Times(file.to_host or speed).of
        """the same to the host; as to the device where the file does not say"""
        both = file.both_ways
        self.both_ways = (
            (Fraction(str(both.to_device)), Fraction(str(both.to_host))) if both else (Fraction(1), Fraction(1))
        )

    @property
    def most(self) -> int | None:
        """Bytes of the largest copy that was measured; None where a formula gives the times of all."""
        return self.speed.points[-1][0] if self.speed.points else None

    @property
    def estimated(self) -> bool:
        """Whether the times come from a formula and not from a measurement of this machine."""
        return self.label == "ESTIMATED"

    @property
    def lacks(self) -> list[str]:
        """What the file does not say of copies to the host, and of both directions at once."""
        return [name for name in ("to_host", "both_ways") if getattr(self.file, name) is None]


def load_link(name_or_path: str | Path, *, pinned: bool = True) -> LinkTable:
    """The link of that shipped name or path, copying from pinned or from pageable host memory.

    Raises InputError where there is no such link, where the file is truncated or foreign, and where it has no figures
    for pageable memory and those are asked for.
    """
    file, digest = read(LinkFile, "links", name_or_path, "link")
    speed = file.pinned if pinned else file.pageable
    if speed is None:
        raise InputError(Problem("link", f"{file.name} has no figures for pageable host memory; use pinned memory"))
    return LinkTable(file, speed, digest, pinned=pinned)
