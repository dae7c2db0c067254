from __future__ import annotations

import pytest

from agent.messages.records import Evaluation, ResultCode
from agent.web.dashboard import BINS, Dashboard
from agent.web.labels import CODES, VERDICTS
from agent.web.token_auth import RefusedError, TokenAuth
from tests.support.fakes import FakeClock
from tests.support.pages import result


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def board(clock: FakeClock) -> Dashboard:
    return Dashboard(clock, lambda: 5_000_000)


def test_every_verdict_and_every_code_has_a_label() -> None:
    assert set(VERDICTS) == set(Evaluation)
    assert set(CODES) == set(ResultCode)
    assert all(words for code, words in CODES.items() if code is not ResultCode.NONE)


def test_a_bin_of_the_chart_keeps_its_worst_score_and_verdict(board: Dashboard) -> None:
    scores = [2.0, 50.0, 3.0]
    board.take_results(
        [{**result(0, score).payload(), "creationTime": 1000 + place} for place, score in enumerate(scores)]
    )
    _, update = board.update(0)
    assert update["bins"] == [[1000, 5.0, Evaluation.NOT_OK, 3]]


def test_a_frame_without_a_score_is_still_a_point_of_the_chart(board: Dashboard) -> None:
    board.take_results([result(0, float("nan")).payload()])
    assert board.update(0)[1]["bins"][0][1] is None


@pytest.mark.parametrize("score", [1.0, 50.0])
def test_a_verdict_that_came_too_late_is_shown_as_the_line_was_told(board: Dashboard, score: float) -> None:
    late = {**result(0, score).payload(), "resultCode": ResultCode.TOO_LATE.value}
    board.take_results([late])
    update = board.update(0)[1]
    for entry in (update["shown"], update["last"][0], update["rejects"][0], board.about(late["resultId"])):
        assert (entry["evaluation"], entry["verdict"]) == (Evaluation.NOT_DECIDABLE, "NOT DECIDABLE")
    verdict = "NOT OK" if score > 10 else "OK"
    assert update["shown"]["why"] == f"too late: the line was told NOT DECIDABLE ({verdict})"
    assert update["bins"][0][2] == Evaluation.NOT_DECIDABLE


def test_scores_are_multiples_of_the_threshold(board: Dashboard) -> None:
    board.take_results([result(0, 50.0).payload(), {**result(1).payload(), "threshold": None}])
    assert [entry["ratio"] for entry in board.update(0)[1]["last"]] == [None, 5.0]


def test_the_chart_is_bounded_whatever_comes(board: Dashboard) -> None:
    board.take_results([result(number).payload() for number in range(BINS + 100)])
    _, update = board.update(0)
    assert len(update["bins"]) == BINS
    assert len(update["last"]) == 10


def test_a_viewer_that_has_the_chart_gets_only_what_is_new(board: Dashboard) -> None:
    board.take_results([result(number).payload() for number in range(5)])
    since, first = board.update(0)
    board.take_results([result(5).payload()])
    since, second = board.update(since)
    assert (len(first["bins"]), first["isWhole"]) == (5, True)
    assert ([each[0] for each in second["bins"]], second["isWhole"]) == ([1_005_000], False)
    assert board.update(since)[1]["bins"] == []


def test_the_worst_of_a_second_is_shown_and_then_the_last(board: Dashboard, clock: FakeClock) -> None:
    board.take_results([result(number, 50.0 if number == 1 else 1.0).payload() for number in range(4)])
    shown = board.update(0)[1]["shown"]
    assert (shown["seq"], shown["verdict"], shown["of"]) == (1, "NOT OK", 4)
    clock.now_s += 2.0
    shown = board.update(0)[1]["shown"]
    assert (shown["seq"], shown["verdict"], shown["of"]) == (3, "OK", 1)


def test_rejects_stay_in_their_list_when_good_parts_follow(board: Dashboard) -> None:
    board.take_results([result(0, 50.0).payload(), *(result(number).payload() for number in range(1, 30))])
    update = board.update(0)[1]
    assert [each["seq"] for each in update["rejects"]] == [0]
    assert update["last"][0]["seq"] == 29


def refusal(access: TokenAuth, authorization: str, address: str = "here") -> int:
    with pytest.raises(RefusedError) as refused:
        access.check(address, authorization)
    return refused.value.status


def test_only_the_token_opens(clock: FakeClock) -> None:
    access = TokenAuth("secret-token", clock)
    access.check("here", "Bearer secret-token")
    for wrong in ("", "secret-token", "Bearer secret-toke", "Bearer secret-token2", "Basic secret-token", "Bearer ü"):
        assert refusal(access, wrong, address=wrong) == 401
    assert refusal(TokenAuth(None), "Bearer ") == 403


def test_guessing_is_slow_but_only_for_the_address_that_guesses(clock: FakeClock) -> None:
    access = TokenAuth("secret-token", clock)
    assert [refusal(access, "Bearer wrong") for _ in range(7)] == [401] * 5 + [429] * 2
    assert refusal(access, "Bearer secret-token") == 429
    access.check("elsewhere", "Bearer secret-token")
    clock.now_s += 10.0
    assert refusal(access, "Bearer wrong") == 401
    assert refusal(access, "Bearer wrong") == 429
    clock.now_s += 10.0
    access.check("here", "Bearer secret-token")


def test_memory_for_addresses_is_bounded(clock: FakeClock) -> None:
    access = TokenAuth("secret-token", clock)
    for number in range(1000):
        assert refusal(access, "Bearer wrong", address=str(number)) == 401
    assert len(access._left) == 256
