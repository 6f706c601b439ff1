"""Streams of a service of frail models, and what becomes of their frames."""

from __future__ import annotations

import threading

from mmvitaccel.testing.service import Alone
from tests.serving.conftest import encoded
from tests.serving.ray_app.frail import that_stays
from tests.serving.ray_app.started import pictures

COUNT = 400  # pictures of a stream, more than a test shows
LONG = 240  # seconds, as long as a frame can say


class Camera:
    """A stream, and what becomes of its frames.

    Every answer is compared with the stream alone, and is whole where its process is another one.
    """

    def __init__(self, service, name, seed):
        self.service, self.name = service, name
        self.shown, self.alone = pictures(seed, COUNT), Alone()
        self.number, self.process, self.moves, self.lost = -1, None, 0, []
        assert service.ask("PUT", "/stream", name)[0] == 200
        self.next()

    def next(self):
        """Show a frame: the process that answered it, or None where it was lost."""
        self.number += 1
        picture = next(self.shown)
        status, said = self.service.frame(self.name, self.number, picture)
        if status == 503:
            self.note_lost(said)
            return None
        assert status == 200, said
        *output, process = said["output"]
        assert (said["stream"], said["frame_id"]) == (self.name, self.number)
        assert said["whole"] == (process != self.process)
        assert self.alone.difference(picture, output, said["whole"]) < 1e-5
        self.moves += self.process not in (None, process)
        self.process = process
        return process

    def note_lost(self, said):
        assert said["reason"] == "lost", said
        assert f"stream '{self.name}': its replica ended" in said["error"]
        assert "send the next frame, which another replica computes whole" in said["error"]
        self.lost.append(self.number)

    def leave(self):
        self.service.ask("DELETE", "/stream", self.name)


def cameras_of(service, prefix):
    """Streams on both replicas, as lists by their process."""
    service.wait_until(lambda: len(service.replicas()) == 2, "two replicas")
    service.wait_until_ready()
    found = {}
    for seed in range(24):
        camera = Camera(service, f"{prefix}-{seed}", seed)
        found.setdefault(camera.process, []).append(camera)
        if len(found) == 2 and all(len(of) >= 2 for of in found.values()):
            return found
    raise AssertionError(f"{prefix}: 24 streams are on {len(found)} replica")


def in_the_model(camera, seconds=LONG):
    """Send a frame that stays in the model; its answer comes to the list that is returned."""
    camera.number += 1
    body, answers = encoded(that_stays(next(camera.shown), seconds)), []

    def ask():
        answers.append(camera.service.ask("POST", "/frame", camera.name, camera.number, body=body))

    thread = threading.Thread(target=ask)
    thread.start()
    camera.service.wait_until(lambda: camera.service.total("waiting_frames"), "a frame's turn")
    return thread, answers


def goes_on(camera):
    """The stream's next answer, after those that were lost too."""
    for _ in range(20):
        if camera.next() is not None:
            return
    raise AssertionError(f"{camera.name} lost frames {camera.lost}")
