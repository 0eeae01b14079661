"""What tracing costs: the same sequences run with and without hooks, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from moesim.live.generate import Generator
from moesim.live.prompts import Prompt
from moesim.live.tracer import RoutingTracer

SEQUENCES = 4  # of a batch that is timed
OUTPUT = 16  # tokens that each generates
WAYS = ("plain", "chosen", "full")


def measure(
    generator: Generator, prompts: Sequence[Prompt], tracer: Callable[[bool], RoutingTracer], batches: int
) -> dict[str, Any]:
    """Seconds of `batches` batches without hooks, with those of the choice, and with probabilities and predictions.

    `tracer(full)` gives a new tracer. The batches are spread over the prompts; which way begins goes round; one batch
    before all is not counted.
    """
    # Seconds of the processor are not disturbed by what else a machine does; a GPU's work is not in them.
    on_gpu = generator.device.partition(":")[0] == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    step = max(len(prompts) // batches, 1)
    groups = [_group(prompts, at * step) for at in range(batches)]
    seconds = dict.fromkeys(WAYS, 0.0)
    _run(generator, groups[0], None)
    for number, group in enumerate(groups):
        for turn in range(len(WAYS)):
            way = WAYS[(number + turn) % len(WAYS)]
            begun = clock()
            _run(generator, group, None if way == "plain" else tracer(way == "full"))
            seconds[way] += clock() - begun
    return {
        "clock": "wall" if on_gpu else "processor",
        "batches": batches,
        "sequences": sum(map(len, groups)),
        "tokens": sum(prompt.tokens for group in groups for _, prompt in group),
        **{f"{way}_s": round(seconds[way], 5) for way in WAYS},
        "chosen": round(seconds["chosen"] / seconds["plain"] - 1, 4),
        "full": round(seconds["full"] / seconds["plain"] - 1, 4),
    }


def _group(prompts: Sequence[Prompt], start: int) -> list[tuple[int, Prompt]]:
    found = []
    for number in range(start, min(start + SEQUENCES, len(prompts))):
        prompt = prompts[number]
        if prompt.continuation is None:
            prompt = replace(prompt, output=min(prompt.output, OUTPUT))
        found.append((number, prompt))
    return found


def _run(generator: Generator, group: list[tuple[int, Prompt]], tracer: RoutingTracer | None) -> None:
    if tracer is None:
        list(generator.run(group))
    else:
        with tracer:
            for number, _ in generator.run(group, tracer):
                tracer.take(number)
    if generator.device.partition(":")[0] == "cuda":
        torch.cuda.synchronize(generator.device)
