"""Load on the service of streams over loopback: no mixed or lost frames, and bounded memory.

    python benchmarks/endurance/serving_load.py                  # ten minutes
    python benchmarks/endurance/serving_load.py --minutes 2      # the form of a nightly run

The service is started as users start it, with a small model that reports its selections. A plain
asyncio client with a limited number of frames in flight plays 1, 4, 16 and 64 streams with random
gaps, in bursts, and with readers that fetch their answers late. Every frame must have an answer or
a reason, each answer must equal that of the stream alone with the same selections, and the counts
of service and client must agree. A line is printed for each load; the first mistake ends the run
with exit status 1. It needs the extra ``serve``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.extras import require
from mmvitaccel.testing import service

IN_FLIGHT = 32  # frames of all streams
WAYS = ("poisson", "bursts", "slow readers")
HEIGHT, WIDTH = service.SIZE


@dataclass(frozen=True)
class Result:
    """Summary of one load.

    Attributes:
        streams: Number of streams at a time.
        way: How their frames arrive.
        sent: Number of frames sent.
        answered: Number of frames answered with a result.
        dropped: Number of frames with the reason ``dropped`` or ``full``.
        whole: Number of answered frames that were computed completely.
        state_megabytes: Maximum memory of the streams.
    """

    streams: int
    way: str
    sent: int
    answered: int
    dropped: int
    whole: int
    state_megabytes: float


class Mistake(Exception):
    """An answer is not the stream's own, or a frame is lost."""


async def ask(
    port: int, method: str, path: str, headers: dict[str, str], body: bytes = b"", late: float = 0
) -> tuple[int, bytes]:
    """Send a request on a new connection; the answer is read after the given seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        given = {"host": "load", "connection": "close", "content-length": str(len(body)), **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in given.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        await asyncio.sleep(late)
        content = await reader.read()
    finally:
        writer.close()
    head, _, rest = content.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        raise Mistake("an answer came in parts, which this client does not read")
    return int(head.split(None, 2)[1]), rest


def picture(stream: int, number: int) -> np.ndarray:
    """Make a stream's frame (H, W, 3): a background of its own, and a square that moves."""
    rng = np.random.default_rng(stream)
    shown = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    rng = np.random.default_rng((stream, number))
    top, left = rng.integers(0, HEIGHT - 12), rng.integers(0, WIDTH - 12)
    shown[top : top + 12, left : left + 12] = rng.integers(0, 256, (12, 12, 3))
    return shown


class Load:
    """Plays streams and stores the answers.

    Args:
        port: Port of the service.
        streams: Number of streams.
        way: One of :data:`WAYS`.
        seconds: Duration.
        seed: Seed of all random numbers; also distinguishes the streams of different loads.
    """

    def __init__(self, port: int, streams: int, way: str, seconds: float, seed: int) -> None:
        self.port, self.way, self.seconds, self.seed = port, way, seconds, seed
        self.names = [f"load-{seed}-{n}" for n in range(streams)]
        self.answers: dict[str, dict[int, dict]] = defaultdict(dict)
        self.reasons: Counter[str] = Counter()
        self.sent = 0

    async def run(self) -> None:
        """Play all streams at once."""
        self._flying = asyncio.Semaphore(IN_FLIGHT)
        await asyncio.gather(*(self._stream(place) for place in range(len(self.names))))

    async def _stream(self, place: int) -> None:
        rng = np.random.default_rng((self.seed, place))
        own = {"x-session-id": self.names[place], "x-stream-token": service.TOKEN}
        status, said = await ask(self.port, "PUT", "/stream", own)
        if status != 200:
            raise Mistake(f"{self.names[place]} was not opened: {status} {said!r}")
        end, number, flying = time.monotonic() + self.seconds, 0, set()
        gap = 0.03 * max(len(self.names), 4)  # mean seconds between frames
        while time.monotonic() < end:
            burst = int(rng.integers(2, 6)) if self.way == "bursts" else 1
            for _ in range(burst):
                late = float(rng.random()) * 0.5 if self.way == "slow readers" else 0.0
                await self._flying.acquire()
                sent = asyncio.ensure_future(self._frame(place, number, own, late))
                flying.add(sent)
                sent.add_done_callback(flying.discard)
                self.sent, number = self.sent + 1, number + 1
                # Connections are accepted in the order of their frames
                await asyncio.sleep(0.005)
            await asyncio.sleep(float(rng.exponential(gap)) * burst)
        await asyncio.gather(*flying)
        await ask(self.port, "DELETE", "/stream", own)

    async def _frame(self, place: int, number: int, own: dict[str, str], late: float) -> None:
        try:
            headers = {**own, "x-frame-id": str(number), "x-frame-size": f"{WIDTH}x{HEIGHT}"}
            body = picture(place, number).tobytes()
            status, content = await ask(self.port, "POST", "/frame", headers, body, late)
            said = json.loads(content)
            if status == 200:
                self.answers[self.names[place]][number] = said
            else:
                self.reasons[said["reason"]] += 1
        finally:
            self._flying.release()

    def check(self) -> None:
        """Compare every stream with the same stream alone.

        Raises:
            Mistake: An answer differs, or a frame has none.
        """
        # a frame that arrives after a later one is refused as out of order
        expected = {"dropped", "full", "order"}
        if set(self.reasons) - expected:
            raise Mistake(f"frames were refused for {dict(self.reasons)}")
        answered = sum(map(len, self.answers.values()))
        if answered + sum(self.reasons.values()) != self.sent:
            raise Mistake(f"of {self.sent} frames {answered} were answered and {self.reasons} not")
        for place, name in enumerate(self.names):
            alone = service.Alone()
            for number, said in sorted(self.answers[name].items()):
                shown = picture(place, number)
                far = alone.difference(shown, said["output"], said["whole"])
                if said["stream"] != name or said["frame_id"] != number or far > 1e-5:
                    raise Mistake(
                        f"{name}, frame {number}: {far:.1e} from the stream alone, and the answer "
                        f"says {said['stream']}, {said['frame_id']}"
                    )


def totals(port: int) -> Counter[str]:
    """Return the service's counters and gauges, summed over its replicas."""
    _, content = asyncio.run(ask(port, "GET", "/metrics", {}))
    found: Counter[str] = Counter()
    for line in content.decode().splitlines():
        if line.startswith("mmvitaccel_"):
            name, value = line.rsplit(" ", 1)
            found[name.partition("{")[0].removeprefix("mmvitaccel_")] += float(value)
    return found


def play(port: int, streams: int, way: str, seconds: float, seed: int, cap: float) -> Result:
    """Play a load, and compare its counts with those of the service.

    Raises:
        Mistake: See :meth:`Load.check`; or the counts differ, or memory exceeds its limit.
    """
    before, load, most = totals(port), Load(port, streams, way, seconds, seed), [0.0]

    async def both() -> None:
        playing = asyncio.ensure_future(load.run())
        while not playing.done():
            await asyncio.wait([playing], timeout=1.0)
            state = await asyncio.to_thread(lambda: totals(port)["state_bytes"])
            most[0] = max(most[0], state)
        await playing

    asyncio.run(both())
    load.check()
    after = totals(port)
    answered = sum(map(len, load.answers.values()))
    counted = {
        "frames_total": answered,
        "dropped_frames_total": load.reasons["dropped"],
        "failed_frames_total": 0,
        "cancelled_frames_total": 0,
        "waiting_frames": 0,
    }
    for name, number in counted.items():
        if after[name] - (before[name] if name.endswith("total") else 0) != number:
            raise Mistake(f"{name} went from {before[name]} to {after[name]}, by not {number}")
    if most[0] > cap:
        raise Mistake(f"the streams' memory took {most[0]:.0f} bytes and may take {cap:.0f}")
    whole = sum(said["whole"] for own in load.answers.values() for said in own.values())
    left = load.sent - answered
    return Result(streams, way, load.sent, answered, left, whole, most[0] / 1e6)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Start the service, play every load, and print the summaries."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="total minutes (default: 10)")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument(
        "--state-megabytes", type=float, default=4.0, help="maximum state of a replica in MB"
    )
    args = parser.parse_args(argv)
    if args.minutes <= 0:
        raise UserError(f"--minutes {args.minutes:g} must be above 0.")
    require("serve", "ray")
    folder = Path(tempfile.mkdtemp(prefix="mmv"))
    limits = dict(max_streams=8, max_open=256, state_megabytes=args.state_megabytes)
    model = dict(model="mmvitaccel.testing.service:make", replicas=args.replicas, cpus=0.1)
    started = service.Service(folder, {**model, **limits})
    loads = [(streams, way) for streams in args.streams for way in WAYS]
    seconds = 60 * args.minutes / len(loads)
    try:
        started.wait_until_ready()
        for seed, (streams, way) in enumerate(loads):
            cap = 1e6 * args.state_megabytes * args.replicas
            result = play(started.port, streams, way, seconds, seed, cap)
            print(
                ", ".join(f"{name} {value}" for name, value in asdict(result).items()), flush=True
            )
    except Mistake as mistake:
        raise SystemExit(f"mistake: {mistake}") from None
    finally:
        started.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
