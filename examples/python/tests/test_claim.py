"""What is done about the key, without etcd."""

from pointsman_registration.backoff import LONGEST_SECONDS, Backoff
from pointsman_registration.claim import Claim, Held, Refuse, Rest, Write

OURS, THEIRS, NONE = 7, 9, 0


def check(found: Held | None, expected: type[Rest] | type[Refuse] | Write, *, made: bool = True) -> None:
    step = Claim(lambda value: value.startswith(b"us"), made).step(b"us ready", OURS, found)
    assert step == expected if isinstance(expected, Write) else isinstance(step, expected)


def test_what_we_wrote_is_left_alone_until_we_want_something_else() -> None:
    check(Held(b"us ready", OURS, 10), Rest)
    check(Held(b"us draining", OURS, 10), Write(10, is_repair=False))


def test_a_key_that_vanished_or_was_overwritten_is_written_again() -> None:
    check(None, Write(0, is_repair=True))
    check(Held(b"somebody", NONE, 11), Write(11, is_repair=True))


def test_the_first_write_repairs_nothing() -> None:
    check(None, Write(0, is_repair=False), made=False)


def test_a_stranger_under_our_id_is_refused() -> None:
    check(Held(b"them", THEIRS, 5), Refuse, made=False)


def test_an_earlier_life_of_ours_is_taken_over_even_when_it_says_the_same() -> None:
    check(Held(b"us ready", THEIRS, 5), Write(5, is_repair=False), made=False)


def test_twins_do_not_take_the_key_from_each_other_for_ever() -> None:
    check(Held(b"us ready", THEIRS, 11), Rest)
    # A copy that no lease holds would outlive us.
    check(Held(b"us ready", NONE, 12), Write(12, is_repair=True))


def test_waits_grow_to_five_seconds_and_start_again() -> None:
    backoff = Backoff()
    for full in (0.2, 0.4, 0.8, 1.6, 3.2, 5, 5):
        assert full / 2 <= backoff.next() <= full
    assert all(backoff.next() <= LONGEST_SECONDS for _ in range(100))
    backoff.reset()
    assert backoff.next() <= 0.2
