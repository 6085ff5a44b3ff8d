"""State is the fold of events: the same in whatever order they arrive, however often, from however many clones."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire.experiments.registry.events import COMPLETED, ENDINGS, FAILED, PLAN, RERUN, START, Event, parse_event
from latentwire.experiments.registry.fold import Folded, fold
from latentwire.experiments.registry.model import ErrorClass, State

IDS = st.text("0123456789abcdef", min_size=16, max_size=16)
OWNERS = st.sampled_from("xyz")
GENERATIONS = st.integers(0, 4)
HASHES = st.sampled_from(["", "one", "two"])


def folded(*events: Event) -> Folded:
    return fold("a", events, note=lambda line: None)


def plan(identity: str, generation: int = 0, version: int = 1, config_hash: str = "one") -> Event:
    return Event(PLAN, generation, identity, data={"version": version, "config_hash": config_hash})


def start(owner: str, generation: int = 1, config_hash: str = "one") -> Event:
    return Event(START, generation, f"s{owner}", owner, "2030-01-01T00:00:00Z", {"config_hash": config_hash, "host": "node1"})


def end(kind: str, owner: str, generation: int = 1, **data: object) -> Event:
    return Event(kind, generation, f"e{owner}", owner, "2030-01-01T01:00:00Z", data)


def mark(identity: str, generation: int, reason: str = "why not") -> Event:
    return Event(RERUN, generation, identity, data={"reason": reason})


events = st.one_of(
    st.builds(lambda i, g, v, h: plan(i, g, v, h), IDS, GENERATIONS, st.integers(1, 3), HASHES),
    st.builds(lambda o, g, h: start(o, g, h), OWNERS, GENERATIONS, HASHES),
    st.builds(lambda k, o, g, i: Event(k, g, i, o, "", {"reason": "r"}), st.sampled_from(ENDINGS), OWNERS, GENERATIONS, IDS),
    st.builds(lambda i, g: mark(i, g), IDS, GENERATIONS),
    st.builds(lambda i, g: Event("of-a-later-version", g, i), IDS, GENERATIONS),
)  # fmt: skip


def histories(most: int) -> st.SearchStrategy[list[Event]]:
    """Events as folders hold them: a name has one content for ever."""
    return st.lists(events, max_size=most, unique_by=lambda event: event.file_name)


@settings(max_examples=150, deadline=None)
@given(histories(12).flatmap(lambda found: st.tuples(st.just(found), st.permutations(found))))
def test_order_and_repetition_change_nothing(pair: tuple[list[Event], list[Event]]) -> None:
    given_order, other_order = pair
    assert folded(*given_order) == folded(*other_order, *given_order)


@settings(max_examples=100, deadline=None)
@given(histories(16), st.sets(st.integers(0, 15)), st.sets(st.integers(0, 15)))
def test_no_attempt_is_lost_when_two_clones_become_one(history: list[Event], here: set[int], there: set[int]) -> None:
    one, two = ([event for index, event in enumerate(history) if index in held] for held in (here, there))
    both = {(attempt.generation, attempt.owner) for attempt in folded(*one, *two).experiment.attempts}
    for clone in (one, two):
        assert {(attempt.generation, attempt.owner) for attempt in folded(*clone).experiment.attempts} <= both


@settings(max_examples=50, deadline=None)
@given(events)
def test_an_event_survives_its_file(event: Event) -> None:
    assert parse_event(event.file_name, event.text()) == event


def test_the_life_of_an_experiment() -> None:
    assert folded(plan("p")).experiment.state is State.PENDING
    running = folded(plan("p"), start("x"))
    assert (running.experiment.state, running.experiment.reason) == (State.RUNNING, "running on node1 since 2030-01-01T00:00:00Z")
    failed = folded(plan("p"), start("x"), end(FAILED, "x", error="no space", error_class="disk_quota", exit_code=1))
    assert (failed.experiment.state, failed.experiment.reason) == (State.FAILED, "disk_quota: no space")
    assert failed.deciding is not None
    assert (failed.deciding.exit_code, failed.deciding.error_class) == (1, ErrorClass.DISK_QUOTA)


def test_a_mark_supersedes_what_arrives_later_about_its_generation() -> None:
    marked = folded(plan("p"), start("x", 2), mark("m", 2), end(COMPLETED, "x", 2))
    assert marked.experiment.state is State.PENDING
    assert marked.experiment.reason == "marked for re-run: why not"
    assert marked.experiment.attempts[0].state is State.COMPLETED
    again = folded(plan("p"), start("x", 2), mark("m", 2), end(COMPLETED, "x", 2), start("y", 3))
    assert again.experiment.state is State.RUNNING


def test_of_two_attempts_of_one_generation_the_completed_one_counts_and_both_stay() -> None:
    both = folded(plan("p"), start("x"), end(COMPLETED, "x"), start("y"), end(FAILED, "y"))
    assert both.experiment.state is State.COMPLETED
    assert [attempt.state for attempt in both.experiment.attempts] == [State.FAILED, State.COMPLETED]
    assert folded(plan("p"), start("x"), start("y"), end(FAILED, "y")).experiment.state is State.RUNNING


def test_a_completed_attempt_is_not_undone_by_another_cluster_that_failed_later() -> None:
    both = folded(plan("p"), start("x", 1), end(COMPLETED, "x", 1), start("y", 2), end(FAILED, "y", 2))
    assert (both.experiment.state, both.deciding and both.deciding.owner) == (State.COMPLETED, "x")


def test_another_config_sends_it_back_to_pending_and_the_same_does_not() -> None:
    done = (plan("p"), start("x"), end(COMPLETED, "x"))
    assert folded(*done, plan("q", 1, 2, "one")).experiment.state is State.COMPLETED
    changed = folded(*done, plan("q", 1, 2, "two")).experiment
    assert (changed.state, changed.config_hash) == (State.PENDING, "two")
    # an attempt that another clone made with the old config, later than the plan knew
    late = folded(*done, plan("q", 1, 2, "two"), start("y", 2, "one"), end(COMPLETED, "y", 2))
    assert late.experiment.state is State.PENDING
    # and back again: what was made for the first config may have been overwritten meanwhile
    assert folded(*done, plan("q", 1, 2, "two"), plan("r", 1, 3, "one")).experiment.state is State.PENDING


def test_unknown_kinds_are_kept_and_named() -> None:
    said: list[str] = []
    fold("a", [plan("p"), Event("of-a-later-version", 7, "u")], note=said.append)
    assert said == [
        "experiment a: events of the unknown kind 'of-a-later-version' are kept and ignored; a newer version may know them"
    ]
