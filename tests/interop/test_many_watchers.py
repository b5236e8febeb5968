"""Many watchers of one job over both protocols, in small; `many_watchers.py` does it in large."""

import many_watchers

WATCHERS = 200
LATE_MAX = 5
"""Seconds within which everybody has to see the end of a job."""


def test_all_who_watch_see_the_end_and_a_second_round_takes_no_more_memory(start_server):
    server = start_server()

    first, second = (many_watchers.round_of(server, WATCHERS) for _ in range(2))

    for one in (first, second):
        assert one["missed"] == {"EventSource": 0, "Stream": 0}
        assert max(one["late"].values()) < LATE_MAX
    assert second["peak"] < 1.1 * first["peak"]
