"""Processes below one, and the addresses that they listen on, as the system knows them."""

from __future__ import annotations

import os
import re
import socket
import struct
from pathlib import Path


def below(root):
    """The process and all that it or its children started, by number, with their command lines."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            stat = (path / "stat").read_text()
            parents[int(path.name)] = int(stat.rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    found, new = {root}, {root}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return {pid: command_of(pid) for pid in found}


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def listening(pids):
    """Address and port of every TCP socket on which one of the processes listens."""
    sockets = set()
    for pid in pids:
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                sockets.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            continue
    found = []
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            part = line.split()
            if part[3] == "0A" and f"socket:[{part[9]}]" in sockets:
                address, port = part[1].split(":")
                words = [address[i : i + 8] for i in range(0, len(address), 8)]
                raw = b"".join(struct.pack("=I", int(word, 16)) for word in words)
                found.append((socket.inet_ntop(family, raw), int(port, 16)))
    return found


def outside(found):
    """Those of addresses and ports that other machines reach."""
    return [each for each in found if not re.match(r"127\.|::1$|::ffff:127\.", each[0])]
