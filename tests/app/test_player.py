"""One model for several sessions: nothing of one reaches another."""

from __future__ import annotations

import itertools

import pytest

from mmvitaccel.app.player import Player
from mmvitaccel.app.session import Sessions
from mmvitaccel.budget.target import Target
from mmvitaccel.video_reader import open_video

pytestmark = pytest.mark.extras("video", "av", "supervision")


@pytest.fixture
def sessions(tmp_path):
    return Sessions(tmp_path)


def seen(frame):
    """What of a frame does not depend on time."""
    found = frame.detections
    return frame.number, frame.k, frame.macs, found.bboxes.tolist(), found.scores.tolist()


def alone(model, sessions, clip, share):
    session = sessions.open("me", "page")
    session.target = Target("share", share)
    player, run = Player({"tiny": model}), session.begin()
    frames = player.play(session, run, "tiny", open_video(clip), beside=False)
    return [seen(frame) for frame in itertools.islice(frames, 10)]


def test_two_sessions_at_once_get_what_each_gets_alone(model, sessions, clips):
    given = [(clips["first"], 0.9), (clips["second"], 0.6)]
    expected = [alone(model, sessions, *each) for each in given]
    player, runs = Player({"tiny": model}), []
    for clip, share in given:
        session = sessions.open("me", "page")
        session.target = Target("share", share)
        run = session.begin()
        runs.append(player.play(session, run, "tiny", open_video(clip), beside=False))
    both = [[], []]
    for _ in range(10):
        for frames, run in zip(both, runs):
            frames.append(seen(next(run)))
    assert both == expected
    assert both[0][-1][1] > both[1][-1][1]  # k


def test_a_budget_that_is_moved_is_followed_and_a_stop_ends_the_run(model, sessions, clips):
    session = sessions.open("me", "page")
    session.target = Target("share", 0.9)
    player, video = Player({"tiny": model}), open_video(clips["first"])
    run = player.play(session, session.begin(), "tiny", video, beside=True)
    before = [next(run) for _ in range(6)][-1]
    session.target = Target("share", 0.55)
    after = [next(run) for _ in range(8)][-1]
    assert (before.target, after.target) == (Target("share", 0.9), Target("share", 0.55))
    assert after.macs <= 0.55 * after.dense_macs < before.macs
    assert after.dense_detections is not None
    assert [row["frame"] for row in session.rows] == list(range(14))
    session.stop()
    assert list(run) == []


def test_weights_are_shared_and_the_model_itself_is_not_run(model, clips):
    other = model.apart()
    for ours, theirs in zip(model.model.parameters(), other.model.parameters()):
        assert ours is theirs
    assert other.handle.policy is not model.handle.policy
    next(other.play(clips["first"]))
    assert other.handle.streams and not model.handle.streams
    assert model.budget is None
