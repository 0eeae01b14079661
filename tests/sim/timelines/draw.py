"""Draw the timelines: `python -m tests.sim.timelines.draw [FOLDER]`, into docs/figures/timelines without one.

A figure carries the digest of what it was drawn from, so that a test can tell whether it is up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch

from moesim.files import write_aside
from tests.sim.timelines.looks import LEFT, LEGEND, LOOK, LOOKS, RIGHT, WIDTH, Look
from tests.sim.timelines.panel import Drawing
from tests.sim.timelines.scenes import FIGURES
from tests.sim.timelines.timeline import Figure

FOLDER = Path(__file__).parents[3] / "docs" / "figures" / "timelines"
BETWEEN = 0.1
"""inches between panels"""


def canvas(figure: Figure) -> Canvas:
    """The figure on a canvas of its own size."""
    edges = [bar.end or 0 for p in figure.panels for lane in ("stream", "link", "host") for bar in p.lane(lane)]
    early = any(bar.start is None for p in figure.panels for bar in p.lane("cache"))
    first = -0.035 * max(edges) if early else 0.0  # so that what is there by then has a bar
    parts = [Drawing(panel, first, max(edges)) for panel in figure.panels]
    handles = list(_handles(parts))
    height = sum(part.height + BETWEEN for part in parts) - BETWEEN + LEGEND * bool(handles)
    made = Canvas(figsize=(WIDTH, height), facecolor="white")
    down = 0.0
    for part in parts:
        bottom, wide = 1 - (down + part.bottom) / height, 1 - (LEFT + RIGHT) / WIDTH
        part.draw(made.add_axes((LEFT / WIDTH, bottom, wide, part.bottom / height)))
        down += part.height + BETWEEN
    if handles:
        made.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(LEFT / WIDTH - 0.008, 0), ncols=len(handles),
            frameon=False, fontsize=7.5, handlelength=1.2, handleheight=0.9, columnspacing=1.2, borderpad=0.1,
            borderaxespad=0.1,
        )  # fmt: skip
    return made


def _handles(parts: Sequence[Drawing]) -> Iterator[Patch]:
    """The legend: colours that no bar explains."""
    names: dict[str, Look] = {}
    unnamed = [kind for part in parts for kind in part.unnamed]
    for kind in unnamed:
        if all(kind in part.unnamed or kind not in part.kinds for part in parts):
            names.setdefault(LOOKS[kind].names[0].replace("{}", "").strip(), LOOKS[kind])
    for name, look in names.items():
        if look.wait:
            yield Patch(facecolor="white", edgecolor=look.colour, hatch="//////", linewidth=0.6, label=name)
        else:
            yield Patch(facecolor=look.colour, label=name)
    if any(box.loaded is not None for part in parts for box in part.boxes):
        hatched = {"facecolor": LOOKS["key"].colour, "edgecolor": "white", "hatch": "\\\\\\\\", "linewidth": 0}
        yield Patch(label="on its way", **hatched)


def save(figure: Figure, folder: Path, kind: str = "svg") -> Path:
    """Write one figure."""
    target = folder / f"{figure.name}.{kind}"
    notes = {"Date": None, "Creator": None, "Title": figure.name, "Description": f"drawn from {figure.digest}"}
    with rc_context(LOOK), write_aside(target) as path:
        canvas(figure).savefig(path, format=kind, dpi=110, metadata=notes if kind == "svg" else {})
    return target


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    kind = sys.argv[2] if len(sys.argv) > 2 else "svg"
    for figure in FIGURES:
        save(figure, folder, kind)


if __name__ == "__main__":
    main()
