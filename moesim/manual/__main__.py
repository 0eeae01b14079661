"""Writes what the program knows of itself into docs/ of a checkout: pages, lists and the schema."""

from __future__ import annotations

import sys
from pathlib import Path

from moesim.manual.pages import written


def main(folder: Path) -> None:
    for name, text in written(folder).items():
        path = folder / name
        changed = not path.is_file() or path.read_text(encoding="utf-8") != text
        if changed:
            path.write_text(text, encoding="utf-8")
        print(f"{path}: {'written' if changed else 'is as it was'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
