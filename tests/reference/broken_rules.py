"""A registry of subtly wrong versions of the simulator, by what is wrong in them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Patch = pytest.MonkeyPatch
Make = Callable[[Patch], None]


class Mutations(dict[str, Make]):
    """Used as a decorator: the name of what it decorates says what is wrong."""

    def __call__(self, make: Make) -> Make:
        self[make.__name__.replace("_", " ")] = make
        return make
