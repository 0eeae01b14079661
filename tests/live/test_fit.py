from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.errors import InputError  # noqa: E402
from moesim.live import fit as fitting  # noqa: E402
from moesim.live.fit import Phase, fit  # noqa: E402
from moesim.live.stages import Stages  # noqa: E402

PHASE = Phase("experts", 9, 0.1, (("slow", 0.01),))


class Stopped(Exception):
    pass


def job():
    values = {name: torch.nn.Parameter(torch.full((3,), start)) for name, start in (("fast", 1.0), ("slow", 2.0))}

    def loss_of(step: int):
        target = torch.tensor([0.5, -1.0, 2.0]) * (step % 4)
        return sum(((value - target) ** 2).sum() for value in values.values())

    return values, loss_of


def stages(folder):
    return Stages(folder, {"job": 1}, quiet=True)


def test_an_interrupted_phase_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    values, loss_of = job()
    whole = fit(PHASE, values, loss_of, stages(tmp_path / "whole"))
    monkeypatch.setattr(fitting, "SAVE_EVERY", -1.0)

    def stop(step: int):
        if step == 5:
            raise Stopped
        return loss_again(step)

    again, loss_again = job()
    with pytest.raises(Stopped):
        fit(PHASE, again, stop, stages(tmp_path / "cut"))
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["experts-unfinished.npz", "identity.json"]
    later, loss_later = job()
    steps = []
    found = fit(PHASE, later, lambda step: steps.append(step) or loss_later(step), stages(tmp_path / "cut"))
    assert steps == [5, 6, 7, 8] and found == whole
    assert (tmp_path / "cut" / "experts.npz").read_bytes() == (tmp_path / "whole" / "experts.npz").read_bytes()
    assert not (tmp_path / "cut" / "experts-unfinished.npz").exists()
    assert all(torch.equal(later[name], values[name]) for name in values)


def test_a_finished_phase_is_read(tmp_path):
    values, loss_of = job()
    losses = fit(PHASE, values, loss_of, stages(tmp_path))
    fresh, _ = job()
    assert fit(PHASE, fresh, pytest.fail, stages(tmp_path)) == losses
    assert torch.equal(fresh["slow"], values["slow"])


def test_rates_fall_as_a_cosine_and_by_name():
    assert [PHASE.rate_of("fast.0", step) for step in (0, 9)] == [0.1, 0.0]
    assert PHASE.rate_of("slow.0", 0) == 0.01


@pytest.mark.parametrize("name", ["experts", "experts-unfinished"])
def test_a_truncated_or_foreign_checkpoint_is_refused(tmp_path, name):
    values, loss_of = job()
    fit(PHASE, values, loss_of, stages(tmp_path))
    data = (tmp_path / "experts.npz").read_bytes()
    (tmp_path / "experts.npz").unlink()
    (tmp_path / f"{name}.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="truncated or damaged"):
        fit(PHASE, values, loss_of, stages(tmp_path))
    np.savez(tmp_path / f"{name}.npz", **{"value/fast": np.zeros(4), "losses": np.zeros(1)})
    with pytest.raises(InputError, match="does not hold this job's arrays"):
        fit(PHASE, values, loss_of, stages(tmp_path))


def test_a_work_folder_of_another_job_is_refused(tmp_path):
    stages(tmp_path)
    with pytest.raises(InputError, match=r"holds stages of another job \(job, texts differ\)"):
        Stages(tmp_path, {"job": 2, "texts": "x"})
    (tmp_path / "identity.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        stages(tmp_path)
