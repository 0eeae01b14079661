"""What each importer makes of a small file written out here, and what it says of broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.trace.importers import FORMATS, Options, detect, read_any
from moesim.trace.routing import RoutingTrace, read_routing, write_routing
from tests.trace.test_routing import small

BIGMOE = """# route_trace v1
# model=/data/m.gguf arch=a n_layer=4 n_expert=5 n_expert_used=2
# layer=1 expert_bytes=100 dense_bytes=7
# layer=3 expert_bytes=80 dense_bytes=7
turn,phase,step,layer,slot,expert,weight,residency,expert_bytes
0,0,0,1,0,4,0.7,0,100
0,0,0,1,1,0,0.3,0,100
0,0,1,1,1,2,0.4,0,100
0,0,1,1,0,3,0.6,1,0
0,0,1,3,0,1,nan,0,80
0,0,1,3,1,0,nan,0,80
0,1,2,1,0,4,0.9,1,0
0,1,2,1,1,3,0.1,1,0
0,1,2,3,0,2,0.5,0,80
0,1,2,3,1,1,0.5,1,0
1,0,3,1,0,0,0.5,1,0
1,0,3,1,1,1,0.5,1,0
1,0,3,3,0,0,0.5,1,0
1,0,3,3,1,1,0.5,1,0
"""


def written(folder: Path, text: str | bytes, name: str = "in.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path: Path, **options) -> list[str]:
    with pytest.raises(InputError) as caught:
        read_any(path, Options(**options))
    return [str(problem).replace(f"{path}", path.name) for problem in caught.value.problems]


def ids(trace: RoutingTrace) -> list:
    return trace.experts.tolist()


# ---- BigMoeOnEdge


def test_bigmoe(tmp_path: Path) -> None:
    trace = read_any(written(tmp_path, BIGMOE))
    assert ids(trace) == [
        [[4, 0], [-1, -1]],
        [[3, 2], [1, 0]],
        [[4, 3], [2, 1]],
        [[0, 1], [0, 1]],
    ]
    assert (trace.offsets.tolist(), trace.prompt_tokens.tolist()) == ([0, 3, 4], [2, 1])
    assert trace.weights[:2, 0].tolist() == np.float16([[0.7, 0.3], [0.6, 0.4]]).tolist()
    assert trace.weights[1, 1].tolist() == [0.5, 0.5]  # nan: the source knows none
    meta = trace.meta
    assert (meta.model, meta.router, meta.layers, meta.experts, meta.k) == ("m.gguf", "layerwise", 2, 5, 2)
    assert meta.key_bytes == [100] * 5 + [80] * 5
    assert "layers 1, 3 of the source are layers 0.. here" in meta.notes
    assert "1 of 8 (token, layer) pairs name no expert" in meta.notes
    assert meta.report["source"]["sha256"] == trace.digest


def test_what_is_imported_can_be_written_and_read(tmp_path: Path) -> None:
    trace = read_any(written(tmp_path, BIGMOE))
    write_routing(tmp_path / "t.parquet", trace)
    again = read_any(tmp_path / "t.parquet")
    assert ids(again) == ids(trace) and again.meta == trace.meta
    assert ids(read_routing(tmp_path / "t.parquet")) == ids(trace)


def test_bigmoe_names_every_line_that_is_wrong(tmp_path: Path) -> None:
    text = BIGMOE.replace("0,0,0,1,1,0,0.3", "0,0,0,1,1,x,0.3").replace("0,1,2,1,0,4", "0,2,2,1,0,4")
    assert refused(written(tmp_path, text)) == [
        "in.csv:12: column 'phase' must hold one of 0, 1",
        "in.csv:7: column 'expert' must hold a whole number",
    ]
    text = BIGMOE.replace("0,1,2,1,1,3", "0,1,2,1,1,9").replace("1,0,3,3,1,1", "1,0,3,3,1,-2")
    assert refused(written(tmp_path, text)) == [
        "in.csv:19: expert is negative; it must be 0 or more",
        "in.csv:13: expert beyond the last; there are 5 (0..4)",
    ]
    text = BIGMOE.replace("0,1,2,1,1,3", "0,1,2,1,1,4").replace("0,0,1,1,0,3", "0,1,1,1,0,3")
    assert refused(written(tmp_path, text)) == [
        "in.csv:13: the same expert twice for one token and layer",
        "in.csv:8: the phase differs from that of the token's other lines",
        "in.csv:10: the phase differs from that of the token's other lines",
        "in.csv:11: the phase differs from that of the token's other lines",
    ]
    gap = BIGMOE.replace("0,1,2,", "0,1,4,")
    assert refused(written(tmp_path, gap)) == [
        "in.csv:12: positions before this one are missing; they must run without a gap"
    ]
    short = BIGMOE.replace("0,0,1,1,1,2,0.4,0,100", "0,0,1,1,1,2")
    assert refused(written(tmp_path, short))[0].startswith("in.csv:8: expected 9 columns: turn,phase,step,")
    assert "expert_bytes" in refused(written(tmp_path, BIGMOE.replace(",residency", ",place")))[0]
    unknown_layer = BIGMOE.replace("# layer=3 expert_bytes=80 dense_bytes=7\n", "")
    (problem,) = refused(written(tmp_path, unknown_layer))
    assert "bytes of an expert of layers [3]; give --key-bytes" in problem
    assert read_any(tmp_path / "in.csv", Options(key_bytes=9)).meta.key_bytes == 9
    assert refused(written(tmp_path, BIGMOE.replace("v1", "v2"))) == [
        "in.csv:1: is '# route_trace v2'; expected '# route_trace v1'"
    ]


def test_many_mistakes_of_a_kind_are_counted(tmp_path: Path) -> None:
    lines = [f"0,1,{step},1,0,99,0.5,0,0" for step in range(3, 33)]
    found = refused(written(tmp_path, BIGMOE + "\n".join(lines)))
    assert len(found) == 11 and found[-1] == "in.csv: 20 more lines: expert beyond the last; there are 5 (0..4)"


# ---- llama.cpp


def test_llamacpp_without_a_header(tmp_path: Path) -> None:
    """A prompt of 3 in micro-batches of 2 and 1 (the last layer: the last token of each), then 2 tokens."""
    prompt = [(2, 7), (2, 1), (2, 3), (2, 0), (5, 6), (5, 4)]
    single = [(2, 1), (2, 2), (5, 0), (5, 3)]
    text = "\n".join(f"{layer},{expert}" for layer, expert in [*prompt, *single, *single])
    trace = read_any(written(tmp_path, text))
    assert ids(trace) == [[[7, 1], [-1, -1]], [[3, 0], [6, 4]], [[1, 2], [0, 3]], [[1, 2], [0, 3]]]
    assert (trace.prompt_tokens.tolist(), trace.meta.k, trace.meta.experts) == ([2], 2, 8)
    assert "k is not in the source" in trace.meta.notes and "layers 2, 5" in trace.meta.notes
    assert "the largest id + 1" in trace.meta.notes and trace.meta.key_bytes == 1
    assert read_any(tmp_path / "in.csv", Options(experts=64, key_bytes=12)).meta.experts == 64


def test_llamacpp_without_a_header_mistakes(tmp_path: Path) -> None:
    one_layer = written(tmp_path, "2,7\n2,1\n2,3\n2,0\n")
    assert "one layer only" in refused(one_layer)[0]
    odd = written(tmp_path, "2,7\n2,1\n5,3\n5,0\n2,1\n2,5\n5,1\n")
    assert refused(odd, k=2) == ["in.csv:7: the layer's lines from here are no multiple of k = 2"]
    two = written(tmp_path, "2,7\n2,1\n5,3\n5,0\n2,1\n5,1\n2,1\n2,3\n5,1\n5,2\n")
    assert "two sequences cannot be told apart" in refused(two, k=1)[0]


def test_llamacpp_with_a_header(tmp_path: Path) -> None:
    """Two sequences: prompts of 3 (micro-batches 2 + 1) and 1; the last layer runs for wanted tokens only."""
    text = """phase,n_tokens,layer,token_idx,e0,e1
prefill,2,0,0,5,1
prefill,2,0,1,2,0
prefill,2,1,0,3,4
prefill,1,0,0,1,2
prefill,1,1,0,4,5
decode,1,0,0,0,1
decode,1,1,0,2,3
prefill,1,0,0,3,2
prefill,1,1,0,1,
"""
    trace = read_any(written(tmp_path, text))
    assert ids(trace) == [
        [[5, 1], [-1, -1]],
        [[2, 0], [3, 4]],
        [[1, 2], [4, 5]],
        [[0, 1], [2, 3]],
        [[3, 2], [1, -1]],
    ]
    assert (trace.offsets.tolist(), trace.prompt_tokens.tolist()) == ([0, 4, 5], [3, 1])
    wrong = text.replace("decode,1,0,0", "dream,1,0,0").replace("prefill,2,0,1,", "prefill,2,0,2,")
    assert refused(written(tmp_path, wrong)) == [
        "in.csv:7: column 'phase' must hold one of prefill, prompt, decode, generate",
        "in.csv:3: token_idx must be below n_tokens",
    ]


# ---- arrays

CHOICES = np.array([[[0, 1], [2, 3]], [[1, 0], [3, 5]], [[4, 2], [0, 1]]])


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "in.npz", **arrays)
    return folder / "in.npz"


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", CHOICES.astype(np.int32))
    trace = read_any(tmp_path / "in.npy", Options(prompt_tokens=2, key_bytes=50, model="m"))
    assert ids(trace) == CHOICES.tolist()
    assert (trace.prompt_tokens.tolist(), trace.meta.model, trace.meta.key_bytes) == ([2], "m", 50)
    assert trace.weights[0, 0].tolist() == [0.5, 0.5]
    assert read_any(tmp_path / "in.npy", Options(prompt_tokens=0)).prompt_tokens.tolist() == [3]
    assert "give --prompt-tokens N" in refused(tmp_path / "in.npy")[0]
    assert "has 4 prompt tokens of 3" in refused(tmp_path / "in.npy", prompt_tokens=4)[0]
    assert "names expert 5; there are 5 (0..4)" in refused(tmp_path / "in.npy", prompt_tokens=1, experts=5)[0]


def test_two_dimensions(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", CHOICES[:, :, 0])
    layers = read_any(tmp_path / "in.npy", Options(prompt_tokens=1))
    assert (layers.experts.shape, layers.meta.router) == ((3, 2, 1), "layerwise")
    of_all = {"prompt_tokens": 1, "router": "decoupled"}
    decoupled = read_any(tmp_path / "in.npy", Options(**of_all, layers=7))
    assert (decoupled.experts.shape, decoupled.meta.layers, decoupled.meta.k) == ((3, 1, 2), 7, 2)
    assert "give their number with --layers" in refused(tmp_path / "in.npy", **of_all)[0]
    assert "has choices of 2 layers, not of 7" in refused(tmp_path / "in.npy", prompt_tokens=1, layers=7)[0]
    np.save(tmp_path / "in.npy", CHOICES)
    assert "a decoupled router has one for all layers" in refused(tmp_path / "in.npy", **of_all)[0]


def test_vllm_prompt_and_output(tmp_path: Path) -> None:
    trace = read_any(saved(tmp_path, prompt_routed_experts=CHOICES[:2], routed_experts=CHOICES[2:]))
    assert (ids(trace), trace.prompt_tokens.tolist()) == (CHOICES.tolist(), [2])
    wrong = saved(tmp_path, prompt_routed_experts=CHOICES[:2], routed_experts=CHOICES[2:, :1])
    assert "all but tokens must be equal" in refused(wrong)[0]


def test_an_array_a_sequence_in_the_order_of_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path, request_10=CHOICES[:1], request_9=CHOICES, prompt_tokens=np.array([2, 1]))
    trace = read_any(path)
    assert (trace.offsets.tolist(), trace.prompt_tokens.tolist()) == ([0, 3, 4], [2, 1])
    assert "expected 2 whole numbers" in refused(saved(tmp_path, a=CHOICES, b=CHOICES, prompt_tokens=np.array([2])))[0]


def test_one_array_with_offsets_and_weights(tmp_path: Path) -> None:
    weights = np.array([[[0.9, 0.1], [0.8, 0.2]]] * 3)
    arrays = {"experts": CHOICES, "weights": weights, "prompt_tokens": np.array([1, 1])}
    trace = read_any(saved(tmp_path, **arrays, offsets=np.array([0, 1, 3])))
    assert trace.offsets.tolist() == [0, 1, 3]
    assert trace.weights[0].tolist() == weights[0].astype(np.float16).tolist()
    assert "expected growing from 0 to 3" in refused(saved(tmp_path, **arrays, offsets=np.array([0, 2, 1])))[0]
    assert "unknown arrays ['choices']" in refused(saved(tmp_path, **arrays, choices=CHOICES))[0]


def test_layers_of_zeros_are_dense(tmp_path: Path) -> None:
    filled = np.insert(CHOICES, 0, 0, axis=1)
    np.save(tmp_path / "in.npy", filled)
    trace = read_any(tmp_path / "in.npy", Options(prompt_tokens=1))
    assert ids(trace) == CHOICES.tolist() and "layers 0 hold zeros only" in trace.meta.notes


def test_arrays_that_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", CHOICES.astype(float))
    assert "float64 [3, 2, 2]; expected an array [tokens, layers, k]" in refused(tmp_path / "in.npy")[0]
    np.save(tmp_path / "in.npy", np.array([[[1, 1]], [[-3, 2]]]))
    found = refused(tmp_path / "in.npy", prompt_tokens=1)
    assert "token 1, layer 0: expert -3" in found[0] and "names an expert twice ([1, 1])" in found[1]
    assert "no array that can be read" in refused(written(tmp_path, b"\x93NUMPYx", "in.npy"))[0]
    np.save(tmp_path / "in.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "no array that can be read" in refused(tmp_path / "in.npy")[0]
    assert "no archive of arrays" in refused(written(tmp_path, b"PK\x03\x04x", "in.npz"))[0]


# ---- plain CSV and JSONL

LONG = """# model=toy experts=8 key_bytes=64
sequence,domain,position,phase,layer,slot,expert,weight
a,code,0,prompt,0,0,1,0.5
a,code,0,prompt,1,0,7,1
a,code,1,output,0,1,2,0.25
a,code,1,output,0,0,3,0.75
a,code,1,output,1,0,0,1
b,maths,0,prompt,0,0,1,1
b,maths,0,prompt,1,0,4,1
"""


def test_a_line_per_choice(tmp_path: Path) -> None:
    trace = read_any(written(tmp_path, LONG))
    assert ids(trace) == [[[1, -1], [7, -1]], [[3, 2], [0, -1]], [[1, -1], [4, -1]]]
    assert (trace.prompt_tokens.tolist(), trace.domains) == ([1, 1], ("code", "maths"))
    assert (trace.meta.model, trace.meta.experts, trace.meta.key_bytes) == ("toy", 8, 64)
    assert trace.weights[1, 0].tolist() == [0.75, 0.25]


def test_a_line_per_token_and_layer(tmp_path: Path) -> None:
    text = "position,layer,e0,e1,w0,w1\n0,0,3,1,0.6,0.4\n0,1,2,,1,\n1,0,0,1,0.5,0.5\n1,1,3,0,0.5,0.5\n"
    trace = read_any(written(tmp_path, text), Options(prompt_tokens=1))
    assert ids(trace) == [[[3, 1], [2, -1]], [[0, 1], [3, 0]]]
    assert trace.weights[0].tolist() == np.float16([[0.6, 0.4], [1, 0]]).tolist()


def test_plain_csv_mistakes(tmp_path: Path) -> None:
    assert "expected position, layer and expert" in refused(written(tmp_path, "position,layer,who\n0,0,1\n"))[0]
    facts = written(tmp_path, LONG.replace("experts=8", "experts=none").replace("model=toy", "colour=red"))
    assert refused(facts) == [
        "in.csv:1: unknown fact 'colour'; there is: model, router, layers, experts, key_bytes",
        "in.csv:1: experts 'none' makes no sense here",
    ]
    late = LONG.replace("a,code,0,prompt", "a,code,0,output").replace("a,code,1,output", "a,code,1,prompt")
    assert refused(written(tmp_path, late)) == [
        "in.csv:6: a prompt token comes after an output token of its sequence",
        "in.csv:3: the sequence begins with an output token; a prompt comes first",
    ]
    assert refused(written(tmp_path, LONG.replace("a,code,1,output,0,0,3", "a,code,1,output,0,1,3"))) == [
        "in.csv:6: the same slot twice for one token and layer"
    ]


def test_jsonl(tmp_path: Path) -> None:
    lines = [
        {"model": "toy", "experts": 6, "key_bytes": [1, 2, 3, 4, 5, 6] * 2},
        {"sequence": "x", "phase": "prompt", "experts": [[5, 1], [2]], "weights": [[0.5, 0.5], [1]]},
        {"sequence": "x", "phase": "output", "experts": [[0], []]},
        {"sequence": "y", "phase": "prompt", "experts": [[1], [1]], "domain": "code"},
    ]
    trace = read_any(written(tmp_path, "\n".join(map(json.dumps, lines)), "in.jsonl"))
    assert ids(trace) == [[[5, 1], [2, -1]], [[0, -1], [-1, -1]], [[1, -1], [1, -1]]]
    assert (trace.prompt_tokens.tolist(), trace.domains) == ([1, 1], ("imported", "code"))
    assert (trace.meta.experts, trace.meta.key_bytes[-1]) == (6, 6)


def test_jsonl_decoupled(tmp_path: Path) -> None:
    facts = json.dumps({"experts": 6, "layers": 12})
    tokens = "\n".join(json.dumps({"experts": [e]}) for e in (1, 2, 3))
    trace = read_any(written(tmp_path, f"{facts}\n{tokens}", "in.jsonl"), Options(prompt_tokens=2))
    assert (trace.meta.router, trace.meta.layers, trace.experts.shape) == ("decoupled", 12, (3, 1, 1))


def test_jsonl_mistakes(tmp_path: Path) -> None:
    lines = [
        '{"experts": [[1], [2]]}',
        '{"experts": [[1]]}',
        "nonsense",
        '{"experts": [["a"]]}',
        '{"experts": [[1], [2]], "weights": [[1]], "phase": "later"}',
        '{"chosen": 3}',
    ]
    found = refused(written(tmp_path, "\n".join(lines), "in.jsonl"))
    assert [line.split(": ", 1)[0] for line in found] == ["in.jsonl:3", "in.jsonl:4", "in.jsonl:5", "in.jsonl:5",
                                                          "in.jsonl:6", "in.jsonl:2"]  # fmt: skip
    assert found[-1] == "in.jsonl:2: has 1 layers; the first token has 2 layers"
    mixed = '{"experts": [[1]], "phase": "prompt"}\n{"experts": [[1]]}\n'
    assert "phases only for some tokens" in refused(written(tmp_path, mixed, "in.jsonl"))[0]


def test_the_examples_of_the_page_are_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "traces.md").read_text()
    first, second, third = page.split("```\n")[1::2]
    tokens = [
        read_any(written(tmp_path, first)),
        read_any(written(tmp_path, second), Options(prompt_tokens=1)),
        read_any(written(tmp_path, third, "in.jsonl")),
    ]
    assert [ids(trace)[0] for trace in tokens] == [[[5, 2], [7, -1]]] * 3
    assert [trace.tokens for trace in tokens] == [2, 1, 2]
    assert tokens[0].meta.key_bytes == tokens[2].meta.key_bytes == 9437184


# ---- any


@pytest.mark.parametrize("data", [b"", b"\n\n", b"hello\n", b"a,b,c\n1,2,3\n", b"\x00\x01\x02", b"# route"])
def test_unknown_input_is_refused_with_what_was_expected(tmp_path: Path, data: bytes) -> None:
    (problem,) = refused(written(tmp_path, data))
    assert all(name in problem for name in FORMATS)


def test_missing_files_and_formats(tmp_path: Path) -> None:
    assert "there is no such file" in refused(tmp_path / "gone.csv")[0]
    assert "is a folder" in refused(tmp_path)[0]
    assert "unknown format 'bigmo'; did you mean 'bigmoe'?" in refused(tmp_path / "gone.csv", format="bigmo")[0]
    latin = written(tmp_path, BIGMOE.encode().replace(b"m.gguf", b"m\xe9.gguf"))
    assert "in.csv:2: is no UTF-8 text" in refused(latin)[0]


def test_our_own_form_says_everything_itself(tmp_path: Path) -> None:
    write_routing(tmp_path / "t.parquet", small())
    assert "leave --experts, --key-bytes out" in refused(tmp_path / "t.parquet", experts=4, key_bytes=3)[0]


def test_each_format_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    write_routing(tmp_path / "t", small())
    np.save(tmp_path / "a.npy", CHOICES)
    found = {
        "moesim": (tmp_path / "t").read_bytes(),
        "bigmoe": BIGMOE.encode(),
        "llamacpp": b"1,2\n1,3\n",
        "npy": (tmp_path / "a.npy").read_bytes(),
        "npz": saved(tmp_path, a=CHOICES).read_bytes(),
        "csv": LONG.encode(),
        "jsonl": b'{"experts": [1]}\n',
    }
    assert {name: detect(Path("x"), data) for name, data in found.items()} == {name: name for name in FORMATS}
