"""Cost tables: shipped ones are what the roofline makes; wrong files are refused with every reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.hardware import read_me_table_8, roofline
from moesim.hardware.costs import CostRangeError, CostTable, load_costs
from moesim.hardware.files import ARGUMENTS, CostFile, data_dir, names, text_of
from moesim.hardware.shape import ModelShape, load_shape, shipped_shapes

LLAMA = load_shape("llama-2-7b-readme")
H100 = load_costs("h100-pcie5-llama-2-7b-readme", shape=LLAMA)


def test_regenerated_tables_are_the_shipped_bytes() -> None:
    made = {name: text_of(document).encode() for name, document in roofline.shipped_documents().items()}
    shipped = {path.stem: path.read_bytes() for path in data_dir("kernels").glob("*.json")}
    assert len(made) == 19
    assert {name: shipped[name] for name in made} == made


@pytest.mark.parametrize("device", roofline.DEVICES)
@pytest.mark.parametrize("name", [name for name in shipped_shapes() if not name.endswith("-30-layers")])
def test_shipped_tables_are_estimated_and_source_every_constant(device: str, name: str) -> None:
    costs = load_costs(f"{device}-{name}", shape=load_shape(name))
    assert costs.estimated
    assert len(costs.digest) == 64
    assert len(costs.file.constants) == 17
    assert all(constant.source and constant.unit for constant in costs.file.constants)
    assert min(costs.launch, costs.sync, costs.copy_submit, costs.decision) > 0


def test_memory_bound_times_by_hand() -> None:
    bandwidth = 2000e9 * 0.8
    key = LLAMA.key_bytes + 8 * 2 * 2 * (4096 + 5504)
    assert H100.experts(8, 1, 8) == round(3 * 2000 + 1000 + key / bandwidth * 1e9)
    keys = 4 * LLAMA.key_bytes + 8 * 2 * 2 * (4096 + 5504)
    assert H100.experts(8, 4, 1) == pytest.approx(3 * 2000 + 4 * 1000 + keys / bandwidth * 1e9, abs=1)
    assert H100.layer_rest(1) == round(5 * 2000 + (4 * 4096**2 * 2 + 20 * 4096) / bandwidth * 1e9)


def test_compute_bound_times_by_hand() -> None:
    flops = 2 * 3 * 4096 * 5504 * 8192
    assert H100.experts(8192, 1, 8192) == round(3 * 2000 + 1000 + flops / (756e12 * 0.6) * 1e9)
    pairs = 8192 * 8193 / 2
    assert H100.attention_prefill(8192, 8192) == round(2000 + 4 * 4096 * pairs / (756e12 * 0.35) * 1e9)


def test_four_bits_read_fewer_bytes_and_compute_as_much() -> None:
    small = load_costs("h100-pcie5-llama-2-7b-readme-int4", shape=load_shape("llama-2-7b-readme-int4"))
    assert small.experts(8, 4, 2) < 0.35 * H100.experts(8, 4, 2)
    assert small.experts(8192, 7, 8192) - H100.experts(8192, 7, 8192) < 0
    assert small.experts(8192, 1, 8192) == H100.experts(8192, 1, 8192)
    assert small.layer_rest(64) == H100.layer_rest(64)


def test_a_table_serves_its_shape_with_other_layers() -> None:
    for name in ("llama-2-7b-readme-int4", "llama-2-7b-fine-grained-int4"):
        costs = load_costs(f"h100-pcie5-{name}", shape=load_shape(f"{name}-30-layers"))
        assert costs.shape.layers == 32


def test_shared_channels_by_hand() -> None:
    """They are read with the rest of the layer, in their own bits, by three more kernels."""
    shape = load_shape("llama-2-7b-fine-grained-int4")
    costs = load_costs("h100-pcie5-llama-2-7b-fine-grained-int4", shape=shape)
    read = 4 * 4096**2 * 2 + 3 * 4096 * 3672 * 4.25 / 8 + 20 * 4096
    assert costs.layer_rest(1) == round(8 * 2000 + read / (2000e9 * 0.8) * 1e9)
    keys = 2 * shape.key_bytes + 2 * 2 * 2 * (4096 + 917)
    assert costs.experts(2, 2, 1) == pytest.approx(3 * 2000 + 2 * 1000 + keys / (2000e9 * 0.8) * 1e9, abs=1)


def test_the_cpu_by_hand() -> None:
    key = LLAMA.key_bytes + 8 * 2 * 2 * (4096 + 5504)
    assert H100.cpu_expert(8) == round(20_000 + key / (307.2e9 * 0.6) * 1e9)
    a100 = load_costs("a100-pcie4-llama-2-7b-readme", shape=LLAMA)
    assert a100.cpu_expert(512) == round(20_000 + 2 * 3 * 4096 * 5504 * 512 / (5.02e12 * 0.5) * 1e9)
    assert H100.has_cpu and H100.cpu_expert(0) == 0


def test_a_mixtral_expert_takes_the_cpu_about_what_was_measured() -> None:
    """3 ms in Fiddler, 5 ms in llama.cpp, as HOBBIT has it."""
    mixtral = ModelShape(
        name="mixtral", layers=32, d_model=4096, expert_width=14336, experts=8, top_k=2, heads=32, kv_heads=8,
        head_dim=128, vocab=32000,
    )  # fmt: skip
    times = [roofline.Roofline(mixtral, device).cpu_expert(1) / 1e6 for device in roofline.DEVICES.values()]
    assert times == pytest.approx([2.89, 1.93], abs=0.01)


def test_a_table_may_know_nothing_of_the_cpu() -> None:
    costs = load_costs("read-me-table-8", shape=LLAMA)
    assert not costs.has_cpu


def test_nothing_takes_no_time() -> None:
    assert [H100.experts(0, 0, 0), H100.attention_decode(0, 0), H100.attention_prefill(0, 0), H100.gate(0)] == [0] * 4


def test_needed_range_is_covered() -> None:
    for name in names("kernels"):
        file = CostFile.model_validate_json((data_dir("kernels") / f"{name}.json").read_bytes())
        costs = CostTable(file)
        if name == "read-me-table-8" or file.label == "MEASURED":  # which reach as far as was measured
            continue
        assert costs.attention_prefill(2048, 16384) > costs.attention_prefill(2048, 2048) > 0
        assert costs.attention_decode(512, 2_000_000) > costs.attention_decode(1, 1) > 0
        assert costs.experts(2048 + 512, file.shape.experts, 2048) > costs.experts(1, 1, 1) > 0
        assert costs.step_rest(512) > 0 < costs.router(1_000_000)


@given(st.data())
def test_no_argument_of_a_component_makes_it_faster(data: st.DataObject) -> None:
    component = data.draw(st.sampled_from(sorted(ARGUMENTS)))
    grid = H100._grids[component]
    point = [data.draw(st.integers(points[0], points[-1])) for points in grid.points]
    axis = data.draw(st.integers(0, len(point) - 1))
    more = list(point)
    more[axis] = data.draw(st.integers(point[axis], grid.points[axis][-1]))
    assert grid.at(tuple(more)) >= grid.at(tuple(point)) - 1  # rounding


@given(st.integers(1, 8192), st.integers(1, 7), st.data())
def test_a_group_of_experts_is_near_its_roofline(tokens: int, active: int, data: st.DataObject) -> None:
    active = min(active, tokens)
    largest = data.draw(st.integers(-(-tokens // active), tokens - active + 1))
    exact = roofline.Roofline(LLAMA, roofline.DEVICES["h100-pcie5"]).experts(tokens, active, largest)
    got = H100.experts(tokens, active, largest)
    assert got == pytest.approx(exact, rel=0.12)  # the table's points are that close together


def test_out_of_range_is_refused_unless_allowed() -> None:
    with pytest.raises(CostRangeError, match="experts is tabulated for tokens 1 to 8192, and 8193 was asked for"):
        H100.experts(8193, 1, 8192)
    allowed = load_costs("h100-pcie5-llama-2-7b-readme", shape=LLAMA, allow_extrapolation=True)
    last, before = allowed.layer_rest(8192), allowed.layer_rest(6144)
    assert allowed.layer_rest(16384) == last + 4 * (last - before)


def test_repeated_questions_are_remembered() -> None:
    costs = load_costs("h100-pcie5-llama-2-7b-readme", shape=LLAMA)
    first = costs.experts(77, 3, 40)
    assert costs._known[("experts", 77, 3, 40)] == first == costs.experts(77, 3, 40)


def test_read_me_table_8_sums_to_the_published_steps() -> None:
    costs = load_costs("read-me-table-8", shape=LLAMA)
    assert costs.estimated
    for batch, total in zip(read_me_table_8.BATCH, (40.55, 41.27, 41.96, 48.59), strict=True):
        layers = 32 * (costs.layer_rest(batch) + costs.experts(batch, 4, 2) + costs.attention_decode(batch, 10**6))
        assert (layers + costs.router(batch)) / 1e6 == pytest.approx(total, abs=0.011)  # the paper rounds each part
    with pytest.raises(CostRangeError, match="tokens 5 to 30"):
        costs.experts(4, 1, 4)


def test_another_shape_is_refused_with_what_differs() -> None:
    with pytest.raises(InputError, match=r"expert_bits 16\.0 \(the model's is 4\.25\)"):
        load_costs("h100-pcie5-llama-2-7b-readme", shape=load_shape("llama-2-7b-readme-int4"))
    renamed = LLAMA.model_copy(update={"name": "mine", "source": "", "layers": 16})
    assert load_costs("h100-pcie5-llama-2-7b-readme", shape=renamed).layer_rest(8) == H100.layer_rest(8)


def test_unknown_name_lists_what_exists() -> None:
    with pytest.raises(InputError, match="did you mean 'h100-pcie5-llama-2-7b-readme'") as caught:
        load_costs("h100-pcie-llama-2-7b-readme", shape=LLAMA)
    assert all(name in str(caught.value) for name in names("kernels"))


def broken(tmp_path: Path, change: Any) -> InputError:
    document = json.loads((data_dir("kernels") / "h100-pcie5-llama-2-7b-readme.json").read_text())
    change(document)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError) as caught:
        load_costs(path, shape=LLAMA)
    return caught.value


def test_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    whole = (data_dir("kernels") / "h100-pcie5-llama-2-7b-readme.json").read_bytes()
    path = tmp_path / "table.json"
    for data, text in [
        (whole[: len(whole) // 2], "truncated"),
        (b"", "truncated"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "holds format None"),
        (b'{"format": "moesim-link", "version": 1}', "holds format 'moesim-link', version 1; expected"),
        (whole.replace(b'"version": 1', b'"version": 2'), "version 2"),
    ]:
        path.write_bytes(data)
        with pytest.raises(InputError, match=text):
            load_costs(path, shape=LLAMA)


def test_values_of_the_wrong_form_are_refused(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        components = document["components"]
        components["gate"]["ns"].pop()
        components["router"]["axes"]["tokens"][1] = 1
        components["layer_rest"]["ns"][0] = -5
        components["step_rest"]["ns"][0] = 1.5
        document["host_ns"]["launch"] = "5 us"

    texts = {str(problem) for problem in broken(tmp_path, change).problems}
    for place in ("components.gate", "components.router", "components.layer_rest", "components.step_rest"):
        assert any(f"{place}: " in text for text in texts), place
    assert any("host_ns.launch" in text for text in texts)


def test_missing_and_unknown_components_are_refused(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["components"]["attention"] = document["components"].pop("gate")
        document["components"]["router"]["axes"] = {"batch": document["components"]["router"]["axes"]["tokens"]}

    text = str(broken(tmp_path, change))
    assert "component gate is missing" in text
    assert "unknown component 'attention'" in text
    assert "router has axes ['batch']" in text


def test_labels_need_their_provenance(tmp_path: Path) -> None:
    assert "date" in str(broken(tmp_path, lambda d: d.update(label="MEASURED")))
    assert "formula" in str(broken(tmp_path, lambda d: d.update(constants=[])))
    assert "label" in str(broken(tmp_path, lambda d: d.update(label="GUESSED")))


def test_a_table_for_a_shape_of_your_own(tmp_path: Path) -> None:
    config = tmp_path / "olmoe" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps(dict(hidden_size=2048, intermediate_size=1024, num_hidden_layers=16, num_experts=64,
                                      num_experts_per_tok=8, num_attention_heads=16, vocab_size=50304)))  # fmt: skip
    out = tmp_path / "table.json"
    assert roofline.main(["--shape", str(config), "--device", "a100-pcie4", "--out", str(out)]) == 0
    costs = load_costs(out, shape=load_shape(config))
    assert costs.experts(8 * 8192, 64, 65536) > costs.experts(8 * 64, 64, 8) > costs.experts(8, 8, 1) > 0


def test_the_command_refuses_a_wrong_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert roofline.main(["--shape", "no-such", "--out", str(tmp_path / "t.json")]) == 2
    assert "unknown model shape 'no-such'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_shapes_with_shared_experts_and_dense_layers_cost_more() -> None:
    base = LLAMA.model_dump() | {"name": "x"}
    wide = ModelShape(**base | {"shared_expert_width": 5504, "dense_layers": 2, "dense_width": 11008})
    gpu = roofline.DEVICES["h100-pcie5"]
    assert roofline.Roofline(wide, gpu).layer_rest(8) > roofline.Roofline(LLAMA, gpu).layer_rest(8) + 80_000
    assert roofline.Roofline(wide, gpu).step_rest(8) > roofline.Roofline(LLAMA, gpu).step_rest(8) + 300_000
