"""The test suite and the import of the package use no network."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

from mmvitaccel.testing import network
from mmvitaccel.testing.network import NetworkRefusedError

OUTSIDE = "192.0.2.1"  # RFC 5737: documentation only, nobody's address
IMPORT_ALL = """
import importlib, pathlib, sys, warnings
events = []
sys.addaudithook(lambda event, args: events.append((event, args[1:]))
                 if event in ("socket.connect", "socket.sendto", "socket.sendmsg") else
                 events.append((event, args)) if event.startswith("socket.get") and
                 event != "socket.gethostname" else None)
import mmvitaccel
assert "socket" not in sys.modules, "import mmvitaccel loads socket"
import mmvitaccel.errors
root = pathlib.Path(mmvitaccel.__file__).parent
names = [".".join(("mmvitaccel", *path.relative_to(root).with_suffix("").parts))
         for path in sorted(root.rglob("*.py")) if path.stem not in ("__init__", "__main__")]
for name in names:
    try:
        importlib.import_module(name)
    except (ImportError, mmvitaccel.errors.UserError) as error:  # an extra that is not installed
        print("not importable here:", name, error, file=sys.stderr)
        assert name.startswith(("mmvitaccel.app.", "mmvitaccel.serving.ray_app.")), name
print(len(names), events)
"""


@pytest.fixture
def cleared():
    """The tests below try to use the network on purpose."""
    yield
    network.refused.clear()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, (OUTSIDE, 9)), (socket.AF_INET6, ("2001:db8::1", 9))],
)
def test_connection_off_this_machine_is_refused(cleared, family, address, kind):
    try:
        sock = socket.socket(family, kind)
    except OSError as error:
        pytest.skip(f"no such sockets here: {error}")
    with sock, pytest.raises(NetworkRefusedError, match=rf"connect to '{address[0]}' was refused"):
        sock.connect(address)


def test_mapped_address_is_refused(cleared):
    assert not network._is_here(f"::ffff:{OUTSIDE}")
    assert network._is_here("::ffff:127.0.0.1")


def test_datagram_is_refused(cleared):
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(NetworkRefusedError, match=f"sendto to '{OUTSIDE}' was refused"),
    ):
        sock.sendto(b"", (OUTSIDE, 9))


def test_name_is_not_looked_up(cleared):
    with pytest.raises(NetworkRefusedError, match=r"getaddrinfo to 'example\.org' was refused"):
        socket.getaddrinfo("example.org", 80)
    with pytest.raises(NetworkRefusedError, match=r"gethostbyname to 'example\.org' was refused"):
        socket.gethostbyname("example.org")


def test_error_is_not_taken_for_a_lost_connection(cleared):
    with pytest.raises(NetworkRefusedError, match=OUTSIDE):
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{OUTSIDE}/")


def test_loopback_passes():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        client.sendall(b"here")
        peer, _ = server.accept()
        with peer:
            assert peer.recv(4) == b"here"
    assert socket.getaddrinfo("localhost", 80)


def test_unix_socket_passes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a Unix socket has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("s")
        server.listen()
        client.connect("s")


def test_refusal_that_a_thread_swallowed_is_kept(cleared):
    def ask():
        try:
            socket.getaddrinfo("example.org", 80)
        except Exception:
            return

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert len(network.refused) == 1
    assert "'example.org'" in network.refused[0]


def test_test_fails_that_asked_for_the_network(pytester, cleared):
    pytester.makeconftest((Path(__file__).parents[1] / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers = extras(extra, *packages): optional")
    pytester.makepyfile(
        "import socket\n"
        "def test_a():\n"
        "    try: socket.getaddrinfo('example.org', 80)\n"
        "    except Exception: pass\n"
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*getaddrinfo to 'example.org' was refused*"])


def test_suite_runs_offline_and_unreported():
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE
    assert constants.HF_HUB_DISABLE_TELEMETRY


def test_importing_every_module_asks_for_no_network():
    env = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    total, events = done.stdout.splitlines()[-1].split(" ", 1)
    assert events == "[]", events
    assert int(total) > 300
