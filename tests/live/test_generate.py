"""Continuous batching changes nothing but the time: each sequence gets the tokens that it would get alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")
pytest.importorskip("transformers", reason="needs the live extra (transformers)")

from moesim.live.generate import Generator, Sampler  # noqa: E402
from moesim.live.kv import can_join  # noqa: E402
from moesim.live.prompts import Prompt  # noqa: E402
from moesim.live.structure import find_blocks  # noqa: E402
from moesim.live.tracer import RoutingTracer  # noqa: E402
from tests.live.architectures import ARCHITECTURES, small  # noqa: E402

KINDS = {
    "full attention": ("LlamaConfig", {}),
    "sliding window": ("MistralConfig", {"sliding_window": 6}),
    "sliding and full, sinks": ("GptOssConfig", ARCHITECTURES["gpt-oss"].given),
    "state space and attention": ("JambaConfig", ARCHITECTURES["Jamba"].given),
    "latent attention": ("DeepseekV3Config", ARCHITECTURES["DeepSeek-V3"].given),
}
SIZES = [(9, 5), (4, 1), (13, 4), (4, 17), (20, 0), (3, 12), (5, 20)]  # prompt and output tokens
SAMPLER = Sampler(0.8, 3)


def prompts(sizes=SIZES, seed=0):
    random = np.random.default_rng(seed)
    made = [Prompt(random.integers(2, 64, size).astype(np.int32), output) for size, output in sizes]
    return list(enumerate(made))


def alone(model, prompt, output, chances, sampler):
    """The continuation by whole passes over what is there so far: no cache, no batch."""
    ids = [int(token) for token in prompt.ids]
    for chance in chances[:output]:
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[:, -1]
        ids += sampler.draw(logits, [chance])
    return ids[len(prompt.ids) :]


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_of_a_batch_are_what_each_is_alone(kind):
    model, todo = small(*KINDS[kind]), prompts()
    together = dict(Generator(model, SAMPLER, 3).run(todo))
    assert [len(together[n]) for n, _ in todo] == [output for _, output in SIZES]
    for number, prompt in todo:
        chances = SAMPLER.chances(number, prompt.output)
        assert together[number].tolist() == alone(model, prompt, prompt.output, chances, SAMPLER)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 9)), min_size=1, max_size=7),
    st.integers(1, 4),
    st.sampled_from(["LlamaConfig", "MistralConfig"]),
)
def test_any_mix_of_lengths_and_slots_gives_the_same_tokens_and_routes_each_once(sizes, slots, kind):
    model = MODELS.setdefault(kind, small(kind, {"sliding_window": 4} if kind == "MistralConfig" else {}))
    todo = prompts(sizes, seed=1)
    watcher = Counting()
    found = dict(Generator(model, SAMPLER, slots).run(todo, watcher))
    one = dict(Generator(model, SAMPLER, 1).run(todo))
    assert {n: ids.tolist() for n, ids in found.items()} == {n: ids.tolist() for n, ids in one.items()}
    assert watcher.seen == {number: size + output for number, (size, output) in enumerate(sizes)}
    assert watcher.widest <= slots


MODELS: dict[str, object] = {}


class Counting:
    """Counts the tokens that were run of each sequence."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.widest = self.passes = 0

    def expect(self, rows, tokens):
        assert len(set(rows)) == len(rows)
        self.widest = max(self.widest, len(rows))
        for row in rows:
            self.seen[row] = self.seen.get(row, 0) + tokens

    def collect(self):
        self.passes += 1


def test_the_next_prompt_joins_as_soon_as_a_slot_is_free():
    watcher = Counting()
    list(Generator(small("LlamaConfig", {}), SAMPLER, 2).run(prompts([(3, 8), (3, 4), (3, 4)]), watcher))
    # Three prompts alone, then eight steps of two: the third takes the place of the second.
    assert watcher.passes == 3 + 8


def test_the_choices_while_decoding_are_those_of_one_pass_over_the_finished_text():
    model = small("Qwen2MoeConfig", ARCHITECTURES["Qwen2-MoE"].given)
    blocks = find_blocks(model, "m")

    def trace(todo, slots):
        found = {}
        with RoutingTracer(blocks, top=4, distances=3, ahead=4) as tracer:
            for number, output in Generator(model, SAMPLER, slots).run(todo, tracer):
                found[number] = output, tracer.take(number)
        return found

    free = trace(prompts(), 3)
    again = trace([(n, Prompt(p.ids, p.output, free[n][0])) for n, p in prompts()], 3)
    for number, (output, routing) in free.items():
        assert output.tolist() == again[number][0].tolist()
        for name, values in routing.arrays().items():
            other = again[number][1].arrays()[name]
            if name.endswith("weights"):
                np.testing.assert_allclose(values, other, atol=2e-3)
            else:
                assert np.array_equal(values, other), name


def test_seeds_change_texts_and_temperature_zero_does_not_need_one():
    model, todo = small("LlamaConfig", {}), prompts([(5, 12), (7, 12)])
    texts = [
        [ids.tolist() for _, ids in sorted(Generator(model, sampler, 2).run(todo))]
        for sampler in (Sampler(1, 0), Sampler(1, 0), Sampler(1, 1), Sampler(0, 0), Sampler(0, 1))
    ]
    assert texts[0] == texts[1] != texts[2]
    assert texts[3] == texts[4] != texts[0]


def test_draws_follow_the_probabilities():
    logits = torch.tensor([[0.1, 0.7, 0.2]]).log().repeat(5, 1)
    assert Sampler(1, 0).draw(logits, [0.0, 0.099, 0.101, 0.799, 0.999]) == [0, 0, 1, 1, 2]
    assert Sampler(0, 0).draw(logits, [0.0] * 5) == [1] * 5
    assert Sampler(1, 0, special=(1,), end_of_text="ban").draw(logits, [0.0, 0.3, 0.4, 0.9, 0.99]) == [0, 0, 2, 2, 2]


def test_end_of_text_stops_or_does_not():
    model, todo = small("LlamaConfig", {}), prompts([(5, 40), (7, 40), (3, 40)])
    free = dict(Generator(model, Sampler(1, 0), 2).run(todo))
    end = int(free[0][7])
    samplers = {way: Sampler(1, 0, (end,), (end,), way) for way in ("stop", "ban", "ignore")}
    ways = {way: dict(Generator(model, sampler, 2).run(todo)) for way, sampler in samplers.items()}
    for number, ids in free.items():
        line = ids.tolist()
        assert ways["stop"][number].tolist() == (line[: line.index(end) + 1] if end in line else line)
        assert ways["ignore"][number].tolist() == line
        assert end not in ways["ban"][number] and len(ways["ban"][number]) == 40


def test_where_caches_cannot_be_joined_each_sequence_runs_alone(monkeypatch):
    monkeypatch.setattr("moesim.live.generate.can_join", lambda cache: False)
    model, watcher = small("LlamaConfig", {}), Counting()
    found = dict(Generator(model, SAMPLER, 3).run(prompts(), watcher))
    monkeypatch.undo()
    assert watcher.widest == 1
    joined = dict(Generator(model, SAMPLER, 3).run(prompts()))
    assert {n: ids.tolist() for n, ids in found.items()} == {n: ids.tolist() for n, ids in joined.items()}


def test_only_known_caches_are_joined():
    from transformers.cache_utils import DynamicCache, StaticCache

    model = small("LlamaConfig", {})
    assert can_join(DynamicCache(config=model.config))
    assert not can_join(StaticCache(config=model.config, max_cache_len=8))
    assert not can_join(((torch.zeros(1), torch.zeros(1)),))
