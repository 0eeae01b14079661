"""A limit of time on what a policy does: one that loops for ever is told of, and not waited for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SECONDS = 60.0
"""for one check; those of shipped policies take a second at most"""


class TooLong(BaseException):
    """The time is up. No Exception, so that no policy catches it on its way."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """TooLong where the body takes longer, at the line where it is then.

    It is the process's alarm clock: without effect outside the main thread, or on a system that has none.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(_: int, frame: FrameType | None) -> None:
        raise TooLong(f"took longer than {seconds:g} s{_place(frame)}")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _place(frame: FrameType | None) -> str:
    if frame is None:
        return ""
    code = frame.f_code
    return f", when it was in {code.co_name} ({Path(code.co_filename).name}:{frame.f_lineno})"
