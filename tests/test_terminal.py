"""What commands share."""

from __future__ import annotations

import pytest
import typer

from moesim.commands.terminal import stopping


@pytest.mark.parametrize(
    ("done", "resumes", "says"),
    [
        ("stages", True, "moesim: stopped; the same command goes on from the stages that are done\n"),
        ("runs", False, "moesim: stopped; nothing was written\n"),
    ],
)
def test_a_command_that_is_stopped_says_what_is_kept(
    done: str, resumes: bool, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, stopping(done, resumes=resumes):
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130 and capsys.readouterr().err == says
