"""Workers' reports in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mmvitaccel.serving.report import WorkerReport

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "mmvitaccel_"
_FRAMES = {  # of the report's counts
    "frames": ("frames", "Frames computed."),
    "whole": ("dense_frames", "Frames computed whole."),
    "dropped": ("dropped_frames", "Frames left out for newer ones or for closed streams."),
    "cancelled": ("cancelled_frames", "Frames whose caller cancelled."),
    "failed": ("failed_frames", "Frames on which the model failed."),
}
_NOW = {
    "streams": ("streams", "Open streams."),
    "remembered": ("remembered_streams", "Streams whose state the model keeps."),
    "memory_bytes": ("state_bytes", "Bytes of the streams' state."),
    "waiting": ("waiting_frames", "Frames that wait or are computed."),
}
_TIMES = "Milliseconds from a frame's arrival to its answer, over the last 1000 frames."
Sample = tuple[Mapping[str, str], float]


def exposition(
    reports: Mapping[str, WorkerReport], silent: Sequence[str], counters: Mapping[str, int]
) -> str:
    """Format reports for Prometheus.

    Args:
        reports: Reports by the worker's name (letters, digits and ``_ . -``), which becomes the
            label ``replica``.
        silent: Names of workers that gave no report.
        counters: Further counters by name, without that label.
    """
    lines: list[str] = []
    workers = [({"replica": name}, report) for name, report in reports.items()]
    answers = {**dict.fromkeys(reports, 1), **dict.fromkeys(silent, 0)}
    up = [({"replica": name}, value) for name, value in answers.items()]
    lines += _lines("up", "gauge", "Whether the replica answers.", up)
    for kind, (name, about) in _FRAMES.items():
        counts = [(label, getattr(report.counts, kind)) for label, report in workers]
        lines += _lines(f"{name}_total", "counter", about, counts)
    refused = [
        ({**label, "reason": reason}, number)
        for label, report in workers
        for reason, number in report.refusals.items()
    ]
    lines += _lines("refused_total", "counter", "Frames and streams refused.", refused)
    evicted = [(label, report.evictions) for label, report in workers]
    lines += _lines("evicted_streams_total", "counter", "Streams forgotten for others.", evicted)
    for kind, (name, about) in _NOW.items():
        lines += _lines(name, "gauge", about, [(o, getattr(r, kind)) for o, r in workers])
    missed = [(label, int(report.missed is not None)) for label, report in workers]
    lines += _lines("budget_missed", "gauge", "Whether the budget cannot be held now.", missed)
    times = [
        ({**label, "quantile": f"{share / 100:g}"}, round(milliseconds, 3))
        for label, report in workers
        for share, milliseconds in report.milliseconds.items()
    ]
    lines += _lines("frame_milliseconds", "gauge", _TIMES, times)
    for name, number in counters.items():
        lines += _lines(f"{name}_total", "counter", name.replace("_", " "), [({}, number)])
    return "\n".join(lines) + "\n"


def _lines(name: str, kind: str, about: str, samples: Iterable[Sample]) -> list[str]:
    """The lines of one metric."""
    lines = [f"# HELP {_PREFIX}{name} {about}", f"# TYPE {_PREFIX}{name} {kind}"]
    for labels, value in samples:
        named = ",".join(f'{key}="{text}"' for key, text in labels.items())
        lines.append(f"{_PREFIX}{name}{f'{{{named}}}' if named else ''} {value}")
    return lines
