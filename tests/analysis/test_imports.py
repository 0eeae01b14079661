"""Importing the analysis must not cost what only its use needs."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import moesim.analysis


def test_no_module_brings_pandas_or_matplotlib_with_it() -> None:
    names = [f"moesim.analysis.{module.name}" for module in pkgutil.iter_modules(moesim.analysis.__path__)]
    assert len(names) >= 9
    heavy = "{'pandas', 'matplotlib', 'pyarrow', 'rich', 'scipy', 'torch'}"
    code = f"import sys, {', '.join(names)}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
