"""A client in a process of its own: plays a stream by Ray's address, and says what came back."""

from __future__ import annotations

import json
import os
import sys

from mmvitaccel.errors import UserError
from mmvitaccel.serving import Refused
from mmvitaccel.serving.ray_app import StreamClient
from mmvitaccel.serving.ray_app.http import lists
from mmvitaccel.testing.service import TOKEN
from tests.serving.conftest import encoded
from tests.serving.ray_app.processes import listening
from tests.serving.ray_app.started import pictures


def refusal(call):
    try:
        call()
    except Refused as refused:
        return [refused.reason, str(refused)]


def play(address):
    said = {}
    with StreamClient(address) as client:
        try:
            StreamClient(application="nothing")
        except UserError as error:
            said["application"] = str(error)
        client.open_stream("python", TOKEN)
        shown = list(pictures(5))
        answers = [client.submit("python", n, p, TOKEN) for n, p in enumerate(shown[:2])]
        answers.append(client.submit("python", 2, encoded(shown[2]), TOKEN))
        said["answers"] = [{**vars(answer), "output": lists(answer.output)} for answer in answers]
        said["kind"] = type(answers[0].output[0]).__name__
        said["token"] = refusal(lambda: client.submit("python", 3, shown[3], "guess"))
        said["order"] = refusal(lambda: client.submit("python", 2, shown[3], TOKEN))
        said["frame"] = refusal(lambda: client.submit("python", 3, b"hello", TOKEN))
        said["sockets"] = listening([os.getpid()])
        client.close_stream("python", TOKEN)
        said["unknown"] = refusal(lambda: client.submit("python", 3, shown[3], TOKEN))
    return said


if __name__ == "__main__":
    print(json.dumps(play(sys.argv[1])))
