from __future__ import annotations

from types import SimpleNamespace

import pytest

from moesim.live.corpus import DOMAINS, Work

VOCABULARY = 64


class Letters:
    """A tokenizer with one token per character."""

    all_special_ids = (0, 1)

    def __call__(self, text: str, add_special_tokens: bool = False) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[2 + ord(letter) % (VOCABULARY - 2) for letter in text])


@pytest.fixture
def dense():
    torch = pytest.importorskip("torch", reason="needs the live extra (torch)")
    transformers = pytest.importorskip("transformers", reason="needs the live extra (transformers)")
    from moesim.live.dense import Dense

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    return Dense(model.requires_grad_(False), Letters(), "tiny", "no file")


@pytest.fixture
def router():
    torch = pytest.importorskip("torch", reason="needs the live extra (torch)")
    from moesim.live.router import PreGatingRouter, RouterConfig

    torch.manual_seed(1)
    made = PreGatingRouter(RouterConfig(VOCABULARY, experts=5, width=16, heads=2, mlp=8)).eval().requires_grad_(False)
    made.head.weight.mul_(20)  # so that choices differ clearly
    return made


@pytest.fixture
def experts():
    torch = pytest.importorskip("torch", reason="needs the live extra (torch)")
    from moesim.live.experts import ExpertSet, strongest

    return ExpertSet(strongest(torch.rand(5, 3, 24, generator=torch.Generator().manual_seed(2)), 0.5))


@pytest.fixture
def works() -> list[Work]:
    """Four works a domain and split, each domain with letters of its own."""
    found = []
    for index, domain in enumerate(DOMAINS):
        letters = [chr(65 + 5 * index + step) for step in range(5)]
        for number in range(8):
            units = [
                f"{number}{unit}" + "".join(letters[(unit * 3 + k * k + number) % 5] for k in range(20))
                for unit in range(12)
            ]
            split = "held-out" if number % 2 else "train"
            found.append(Work(domain, f"source {number % 4}", "CC0-1.0", split, f"work {number}", tuple(units), " "))
    return found
