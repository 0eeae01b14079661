"""The same on a GPU, where there is one."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.live.engine.machine import Options  # noqa: E402
from tests.live.engine.small import both, counts, inputs_of  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
DECOUPLED = [([0, 1, 2], [1, 2, 3, 0, 1]), ([3, 1], [2, 0, 1, 1, 2]), ([1], [3, 3, 2, 0])]
LAYERWISE = [([[a, (a + 1) % 4] for a in p], [[a, (a + 2) % 4] for a in o]) for p, o in DECOUPLED]


@pytest.mark.parametrize("start", ["eager", "barrier", "index"])
@pytest.mark.parametrize("router", ["decoupled", "layerwise"])
def test_counts_and_numbers_on_a_gpu(router: str, start: str) -> None:
    simulated, executed = both(
        inputs_of(DECOUPLED if router == "decoupled" else LAYERWISE, router=router),
        options=Options("cuda"),
        schedule="frozen",
        traffic={"kind": "all", "requests": 3},
        scheduler={"max_requests": 2, "max_tokens": 4},
        machine={"chunk_bytes": 150, "expert_start": start},
        memory={"slots": 3},
    )
    assert counts(executed) == counts(simulated)


def test_prefetching_on_a_gpu() -> None:
    both(
        inputs_of(DECOUPLED, layers=3),
        options=Options("cuda"),
        schedule="frozen",
        traffic={"kind": "all", "requests": 3},
        prefetch="stream-everything",
        memory={"slots": 2, "scope": "global", "staging": 1},
    )
