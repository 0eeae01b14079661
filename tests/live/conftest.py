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


@pytest.fixture(scope="session")
def dense_again():
    """A function that gives the same tiny random LLaMA anew: refactorizing changes the modules of the model it gets."""
    torch = pytest.importorskip("torch", reason="needs the live extra (torch)")
    transformers = pytest.importorskip("transformers", reason="needs the live extra (transformers)")
    from moesim.live.dense import Dense

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
    )

    def make() -> Dense:
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config).eval()
        return Dense(model.requires_grad_(False), Letters(), "tiny", "no file")

    return make


@pytest.fixture
def dense(dense_again):
    return dense_again()


@pytest.fixture
def planted(dense_again):
    """A LLaMA of one layer without attention: the FFN channels c with c % 7 = d fire on domain d's letters (see
    `works`), and only they make its letters likely."""
    import torch
    import transformers

    from moesim.live.dense import Dense

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=28,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    for value in model.parameters():
        if value.ndim == 2:
            value.zero_()
    letters = {d: [2 + (65 + 5 * d + step) % (VOCABULARY - 2) for step in range(5)] for d in range(len(DOMAINS))}
    ffn = model.model.layers[0].mlp
    random = torch.Generator().manual_seed(0)
    for part in (ffn.gate_proj, ffn.up_proj):  # or all silent channels would tie
        part.weight.copy_(0.05 * torch.randn(28, 16, generator=random))
    for d, ids in letters.items():
        model.model.embed_tokens.weight[ids, d] = 1.0
        model.lm_head.weight[ids, 8 + d] = 1.5
        mine = torch.arange(d, 28, 7)
        ffn.gate_proj.weight[mine, d] = 1.0 + 0.1 * torch.rand(4, generator=random)
        ffn.up_proj.weight[mine, d] = 1.0
        ffn.down_proj.weight[8 + d, mine] = 0.2
    return Dense(model, Letters(), "planted", "no file")


@pytest.fixture
def small_model(tmp_path):
    """A model folder as Hugging Face writes it: a tiny LLaMA, and a tokenizer with one token a letter."""
    pytest.importorskip("torch", reason="needs the live extra (torch)")
    transformers = pytest.importorskip("transformers", reason="needs the live extra (transformers)")
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    letters = {chr(code): index for index, code in enumerate(range(32, 127))}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(""), "isolated")
    folder = tmp_path / "small"
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(letters),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


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


@pytest.fixture(scope="session")
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
