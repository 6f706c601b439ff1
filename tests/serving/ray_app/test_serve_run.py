"""Our YAML with Serve's own command: on this machine alone, or not at all."""

from __future__ import annotations

import sys

import pytest

from mmvitaccel.serving.ray_app import loopback
from tests.serving.ray_app.processes import below, listening, outside
from tests.serving.ray_app.started import starting

pytestmark = pytest.mark.extras("serve", "ray")

COMMAND = [sys.executable, "-c", "from ray.serve.scripts import cli; cli()", "run"]
ARGS = dict(model="mmvitaccel.testing.service:make", replicas=1, cpus=0.1, max_streams=8)


def test_with_the_variable_nothing_listens_but_on_this_machine(monkeypatch):
    for name, value in loopback.VARIABLES.items():
        monkeypatch.setenv(name, value)
    with starting(ARGS, COMMAND) as service:
        service.wait_until_ready()
        tree = below(service.process.pid)
        assert any("dashboard" in command for command in tree.values())
        found = listening(tree)
    assert ("127.0.0.1", service.port) in found and len(found) > 5
    assert outside(found) == []


def test_without_it_a_ray_that_others_reach_is_refused(monkeypatch):
    import ray

    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    if ray._private.services.node_ip_address_from_perspective("8.8.8.8:53").startswith("127."):
        pytest.skip("this machine has no address that others reach")
    with starting(ARGS, COMMAND) as service, pytest.raises(RuntimeError) as said:
        service.wait_until_ready()
    assert "where other machines reach it; start the service by" in str(said.value)
