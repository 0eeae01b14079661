"""The Azure conversation trace 2023 through the full model: `pytest -m bench -s tests/bench/test_azure.py`.

All 19,366 requests (22.4 M prompt tokens, 4.1 M output tokens) in their order and at their times: expert cache (LRU, a
pool a layer, 6 of 7 experts), chunked prefill, Llama-2-7B's shape with int4 experts on an H100, the shipped routing
bound by stitching, schedule free. A fresh process each; its time and its largest resident memory are printed beside
the aim: 5 minutes and 1 GB on 2 cores. Only what does not depend on the machine is judged.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.bench

ROOT = Path(__file__).parents[2]
FILE = ROOT.parent / "shared" / "data" / "azure_llm_2023" / "AzureLLMInferenceTrace_conv.csv"
REQUESTS, OUTPUT_TOKENS = 19_366, 4_088_665
AIM_S, AIM_MB = 300, 1000
RUN = """
import json, resource, sys, time
begin = time.perf_counter()
from moesim.experiment import Experiment
from moesim.inputs import Sources, load
from moesim.sim import simulate

file, compiled, users = sys.argv[1], sys.argv[2] == "compiled", int(sys.argv[3])
config = Experiment(
    name="azure",
    trace="smollm2-135m-decoupled",
    model="llama-2-7b-readme-int4",
    costs="h100-pcie5-llama-2-7b-readme-int4",
    link="h100-pcie5",
    allow_extrapolation=True,
    memory={"slots": 6, "scope": "layer"},
    traffic={"kind": "trace", "arrivals": {"file": file, "format": "azure"}},
    scheduler={"batch": "chunked-prefill", "max_tokens": 2048, "max_requests": users},
    cache="lru",
    steps=10**8,
)
result = simulate(config, load(Sources.of(config, ".")), 0, compiled=compiled)
counters = result.counters
wall = time.perf_counter() - begin
used = resource.getrusage(resource.RUSAGE_SELF)
kept = ("steps", "span_ns", "requests_finished", "output_tokens", "longest_pass_over", "pass_over_bound")
print(json.dumps({
    "wall_s": wall,
    "cpu_s": used.ru_utime + used.ru_stime,
    "peak_mb": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6,
    **{name: counters[name] for name in kept},
    "misses": counters["miss_keys_prefill"] + counters["miss_keys_decode"],
}))
"""


@pytest.mark.parametrize("users", [64, 256])
@pytest.mark.parametrize("how", ["Python", "compiled"])
def test_the_conversation_trace(how: str, users: int) -> None:
    """With 64 requests a step at most the server is overloaded and thousands wait; with 256 it keeps up."""
    if not FILE.exists():
        pytest.skip(f"third-party data is not here: ../shared/data/azure_llm_2023/{FILE.name}")
    if how == "compiled" and find_spec("numba") is None:
        pytest.skip("numba, the optional extra `fast`, is not installed")
    command = [sys.executable, "-c", RUN, str(FILE), how, str(users)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    print(
        f"\nAzure conversation trace, {users:3} requests a step, {how:8}: {found['wall_s']:6.1f} s (CPU "
        f"{found['cpu_s']:.1f} s; aim {AIM_S} s), {found['peak_mb']:,.0f} MB at most (aim {AIM_MB:,} MB); "
        f"{found['steps']:,} steps, {found['misses']:,} misses, {found['span_ns'] / 1e9:,.0f} s simulated; longest "
        f"pass-over {found['longest_pass_over']} of at most {found['pass_over_bound']}"
    )
    assert found["requests_finished"] == REQUESTS
    assert found["output_tokens"] == OUTPUT_TOKENS
    assert 0 <= found["longest_pass_over"] <= found["pass_over_bound"]
