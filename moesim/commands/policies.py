"""`moesim policies`: what there is, what a preset holds, and whether a policy keeps to the rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moesim.commands.terminal import JSON, Gather, bad_input, dump

if TYPE_CHECKING:
    from moesim.check.suite import Outcome
    from moesim.errors import Problem
    from moesim.experiment import PolicySpec
    from moesim.policy.catalogue import Entry
    from moesim.presets import Preset

PRESET = "preset"
MARKS = {"pass": "ok", "fail": "FAILED", "skip": "left out"}
STYLES = {"pass": "green", "fail": "bold red", "skip": "dim"}

app = typer.Typer(help="Policies and presets: list them, show one, check one of your own.", invoke_without_command=True)


@app.callback()
def policies(
    context: typer.Context,
    kind: Annotated[str, typer.Option(help="Only cache, prefetch, batch, miss or preset.")] = "",
    as_json: JSON = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As in docs/policies.md.")] = False,
) -> None:
    """List policies and presets: what each may know, what a decision costs, where its rule comes from, what it does."""
    if context.invoked_subcommand is not None:
        return
    with bad_input():
        import sys

        from moesim.policy import KINDS
        from moesim.policy.catalogue import entries

        _check_kind(kind, (*KINDS, PRESET))
        found, problems = entries(tuple(k for k in KINDS if kind in ("", k)))
        presets = _presets() if kind in ("", PRESET) else []
    if as_json:
        print(dump({"policies": [entry.document() for entry in found], "presets": [p.document() for p in presets]}))
    elif markdown:
        print(_markdown(found, presets if kind == PRESET else []))
    else:
        _list(found, presets)
    for problem in problems:  # one broken package does not hide all other policies
        print(f"moesim: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(2)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A preset or a policy, or a path to one.")],
    kind: Annotated[str, typer.Option(help="Where several kinds have a policy of this name: which.")] = "",
    as_json: JSON = False,
) -> None:
    """Print a preset: what it represents and what not, and its settings; or a policy's whole description."""
    with bad_input():
        from moesim import presets
        from moesim.errors import InputError, Problem, unknown
        from moesim.policy import KINDS, names

        _check_kind(kind, (*KINDS, PRESET))
        is_preset = name.endswith(presets.ENDINGS) or name in presets.names()
        if is_preset and kind in ("", PRESET):
            preset = presets.read_preset(name)
            print(dump(preset.document()) if as_json else _preset_text(preset))
            return
        if kind == PRESET:
            raise InputError(Problem("", unknown("preset", name, presets.names())))
        policies_too = [] if kind else presets.names()
        cls = _find(name, kind, {*(n for k in KINDS for n in names(k) if kind in ("", k)), *policies_too})
        print(_policy_text(cls, as_json))


@app.command()
def check(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE.py", help="Also with parameters: 'lookahead(level=step, horizon=3)'.")
    ],
    kind: Annotated[str, typer.Option(help="cache, prefetch, batch or miss, where the name does not tell.")] = "",
    limit: Annotated[float, typer.Option(min=0.1, help="Seconds that one check may take, as a policy may loop.")] = 60,
    as_json: JSON = False,
) -> None:
    """Run the contract of its kind and the scramble test on a policy; exit with 1 if it breaks a rule."""
    with bad_input():
        from moesim.check.suite import CONTRACTS, outcomes

        _check_kind(kind, tuple(CONTRACTS))
        spec = _spec(name)
        cls = _loaded(spec, kind, limit)
        if not as_json:
            print(f"{cls.kind} policy {cls.name}" + f" ({spec.name})" * (spec.name != cls.name))
        found = []
        for outcome in outcomes(cls.kind, spec, seconds=limit):
            found.append(outcome)
            if not as_json:
                _say(outcome)
    failed = sum(outcome.status == "fail" for outcome in found)
    if as_json:
        rows = [{field: getattr(o, field) for field in ("level", "check", "status", "text")} for o in found]
        print(dump({"kind": cls.kind, "name": cls.name, "passed": not failed, "checks": rows}))
    else:
        done = sum(outcome.status == "pass" for outcome in found)
        print(f"\n{failed} of {failed + done} checks failed" if failed else f"\nall {done} checks passed")
    if failed:
        raise typer.Exit(1)


def _loaded(spec: PolicySpec, kind: str, limit: float) -> Any:
    """The class of a policy that can be made with its parameters, within so many seconds."""
    from moesim.check.limit import TooLong, limited
    from moesim.errors import InputError, Problem
    from moesim.policy import KINDS, make, names

    try:
        with limited(limit):
            cls = _find(spec.name, kind, {n for k in KINDS for n in names(k) if kind in ("", k)})
            make(cls.kind, spec)
    except TooLong as error:
        raise InputError(Problem(spec.name, f"making this policy {error}")) from None
    return cls


def _check_kind(kind: str, known: tuple[str, ...]) -> None:
    from moesim.errors import InputError, Problem, unknown

    if kind and kind not in known:
        raise InputError(Problem("--kind", unknown("kind", kind, known)))


def _spec(text: str) -> PolicySpec:
    from moesim.errors import InputError, Problem
    from moesim.experiment import PolicySpec
    from moesim.policy.text import parse

    name, params = parse(text)
    from pydantic import ValidationError

    try:
        return PolicySpec(name=name, params=params)
    except ValidationError as error:
        raise InputError(Problem("", f"{text!r}: {error.errors()[0]['msg']}")) from None


def _find(name: str, kind: str, known: set[str]) -> Any:
    """The class of a policy, whatever its kind where `kind` is ''. InputError where none or several fit."""
    from moesim.errors import InputError, Problem, unknown
    from moesim.policy import KINDS, find, names

    if name.endswith(".py"):
        return _in_file(name, kind)
    fitting = [k for k in KINDS if kind in ("", k) and name in names(k)]
    if not fitting:
        raise InputError(Problem("", unknown("policy", name, known)))
    if len(fitting) > 1:
        raise InputError(Problem("", f"{name!r} is a {' and a '.join(fitting)} policy; say which with --kind"))
    return find(fitting[0], name)


def _in_file(path: str, kind: str) -> Any:
    """The policy in a file; its kind is that of the one kind which the file holds a policy of."""
    from moesim.errors import InputError, Problem
    from moesim.policy import KINDS, find

    if kind or not Path(path).is_file():
        return find(kind or KINDS[0], path)
    fitting: list[Any] = []
    others: list[Problem] = []
    for one in KINDS:
        try:
            fitting.append(find(one, path))
        except InputError as error:
            others += error.problems
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        kinds = " and a ".join(cls.kind for cls in fitting)
        raise InputError(Problem(path, f"holds a {kinds} policy; say which with --kind"))
    loading = [problem for problem in others if "does not load" in problem.text]
    several = [problem for problem in others if "holds 0" not in problem.text]
    text = "holds no policy: a subclass of CachePolicy, PrefetchPolicy, BatchPolicy or MissPolicy under @register(NAME)"
    raise InputError(loading[:1] or several or [Problem(path, text)])


def _presets() -> list[Preset]:
    from moesim.presets import names, read_preset

    gather = Gather()
    found = [gather(lambda name=name: read_preset(name)) for name in names()]  # type: ignore[misc]
    gather.check()
    return [preset for preset in found if preset]


def _list(found: list[Entry], presets: list[Preset]) -> None:
    from rich.console import Console

    from moesim.analysis.layout import width_of

    console = Console()
    console.width = width_of(console)
    for kind in dict.fromkeys(entry.kind for entry in found):
        rows = [
            (entry.name, ", ".join(entry.levels), entry.cost, entry.about, entry.source)
            for entry in found
            if entry.kind == kind
        ]
        console.print(_table(f"{kind} policies", ("name", "level", "decision"), rows))
    if presets:
        named = [(p.name, " + ".join(settings_words(p)), p.represents, p.source) for p in presets]
        console.print(_table("presets", ("name", "policies"), named))
        console.print("moesim policies show NAME prints what a preset leaves out", style="dim", highlight=False)


def _table(title: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Any:
    """Rows of plain columns, of what it does, and of its source, which stands below that."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        table.add_column(head, no_wrap=head == "name", max_width=None if head == "name" else 20)
    table.add_column("what it does, and where its rule comes from", ratio=1)
    for *plain, about, source in rows:
        table.add_row(*(Text(cell) for cell in plain), Text.assemble(about, "\n", (source, "dim")))
    return table


def markdown_of(kind: str) -> str:
    """What `--markdown` prints, of one kind or, with '', of all policies. InputError where one does not load."""
    from moesim.errors import InputError
    from moesim.policy import KINDS
    from moesim.policy.catalogue import entries

    found, problems = entries(tuple(k for k in KINDS if kind in ("", k)))
    if problems:
        raise InputError(problems)
    return _markdown(found, _presets() if kind == PRESET else [])


def _markdown(found: list[Entry], presets: list[Preset]) -> str:
    """Tables of policies by kind, or sections of presets."""
    from moesim.manual.markdown import table

    lines: list[str] = []
    for kind in dict.fromkeys(entry.kind for entry in found):
        heads = ("name", "level", "a decision costs", "what it does", "source")
        rows = [
            (f"`{e.name}`", ", ".join(e.levels), e.cost, e.about, e.source) for e in found if e.kind == kind
        ]
        lines += [f"### {kind}", "", table(heads, rows), ""]
    for preset in presets:
        texts = {"Represents": preset.represents, "Leaves out": preset.leaves_out, "Source": preset.source}
        lines += [f"### {preset.name}", "", f"`{' + '.join(settings_words(preset))}`", ""]
        lines += [f"* {head}: {text}" for head, text in texts.items()]
        lines.append("")
    return "\n".join(lines).rstrip()


def settings_words(preset: Preset) -> list[str]:
    """The policies of a preset in a few words, those that do nothing left out."""
    from moesim.grid import text

    settings = preset.settings
    nodes = [settings.child(key) for key in ("cache", "prefetch", "miss")]
    nodes.append(settings.child("scheduler").child("batch"))
    words = [text(node) for node in nodes if node.value not in (None, "none", "wait")]
    scope = settings.child("memory").child("scope").value
    return [f"{words[0]} ({scope})" if scope and words else "", *words[1:]] if words else []


def _preset_text(preset: Preset) -> str:
    import textwrap

    import yaml

    parts = [preset.name]
    for head, text in (
        ("represents", preset.represents),
        ("leaves out", preset.leaves_out),
        ("source", preset.source),
    ):
        parts.append(textwrap.fill(text, 100, initial_indent=f"{head}: ", subsequent_indent="  "))
    return "\n".join([*parts, "", yaml.safe_dump(preset.settings.plain(), sort_keys=False).rstrip()])


def _policy_text(cls: Any, as_json: bool) -> str:
    from moesim.policy.catalogue import description, entry

    found = entry(cls.kind, cls.name, cls)
    about = description(cls)
    if as_json:
        return dump(found.document() | {"description": about})
    parameters = ", ".join(f"{name}={value}" for name, value in found.parameters.items()) or "none"
    facts = {
        "level": ", ".join(found.levels),
        "decision": found.cost,
        "source": found.source,
        "parameters": parameters,
    }
    return "\n".join([f"{cls.kind} policy {cls.name}", *(f"{k}: {v}" for k, v in facts.items()), "", about])


def _say(outcome: Outcome) -> None:
    """One line for a check as soon as it is done, and what happened below it."""
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    level = f"[{outcome.level}] " if outcome.level else ""
    console.print(Text(f"  {MARKS[outcome.status]:8} ", STYLES[outcome.status]) + Text(level + outcome.check))
    if outcome.text:
        console.print(Text(f"           {outcome.text}"))
