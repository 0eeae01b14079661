"""A set is named by what tells it from others; what most have in common is said once."""

from __future__ import annotations

from moesim.analysis import naming
from moesim.analysis.configurations import read
from tests.analysis import factory


def key(case: str, **values: str) -> naming.Set:
    return tuple({"case": case, **values}.items())


KEYS = [
    key("calm", batch="decode-first", prefetch="none"),
    key("busy", batch="prefill-first", prefetch="none"),
    key("busy", batch="prefill-first", prefetch="step-ahead"),
    key("aged", batch="aged patience=8", prefetch="none"),
]


def test_a_case_and_what_differs_inside_it_tell_a_set_from_all_others() -> None:
    named = [naming.distinctions(one, KEYS) for one in KEYS]
    assert named == [["calm"], ["busy", "prefetch none"], ["busy", "prefetch step-ahead"], ["aged"]]


def test_a_heading_adds_what_is_not_usual() -> None:
    assert [naming.heading(one, KEYS)[1:] for one in KEYS] == [
        ["batch decode-first"],
        ["prefetch none", "batch prefill-first"],
        ["prefetch step-ahead", "batch prefill-first"],
        ["batch aged patience=8"],
    ]


def test_usual_is_what_more_than_half_have() -> None:
    assert naming.usual(KEYS) == {"prefetch": "none"}
    assert naming.usual_words(KEYS) == "where nothing else is said: prefetch none"
    assert naming.usual(KEYS[1:3]) == {"batch": "prefill-first"}, "half is not more than half"
    assert naming.usual_words([]) == naming.usual_words([key("a", batch="")]) == ""


def test_axes_are_named_by_their_last_word_and_a_label_only_where_there_is_no_value() -> None:
    keys = [
        key("", **{"traffic.max_requests": most, "steps.label": "s" + most, "batch": most, "batch.label": "x" + most})
        for most in "12"
    ]
    assert naming.distinctions(keys[0], keys) == ["max requests 1", "steps s1", "batch 1"]


def test_sets_of_one_case_stand_together_and_differ_in_all_but_memory() -> None:
    summary = factory.summary(1, ("waiting", "fresh"), (3, 4)).sort_values("slots", kind="stable")
    configurations = read(summary.assign(prefetch=[f"p{slots}" for slots in summary["slots"]]))
    found = naming.sets(configurations)
    assert [(dict(one)["case"], dict(one)["prefetch"]) for one in found] == [
        ("waiting", "p3"), ("waiting", "p4"), ("fresh", "p3"), ("fresh", "p4"),
    ]  # fmt: skip
    assert sum(map(len, found.values())) == len(configurations)
