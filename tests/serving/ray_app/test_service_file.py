"""Mistakes in a service's YAML, each in a sentence before Ray is started."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.testing.service import ROOT, free_port, service_yaml

pytestmark = pytest.mark.extras("serve", "ray")

MODEL = "mmvitaccel.testing.service:make"
SAMPLE = ROOT / "configs" / "serving" / "detector.yaml"


@pytest.fixture
def check(tmp_path):
    from mmvitaccel.serving.ray_app.service_file import check_service

    def checked(text):
        (tmp_path / "service.yaml").write_text(text)
        check_service(tmp_path / "service.yaml")

    return checked


def test_the_packages_own_is_right(check, tmp_path, monkeypatch):
    monkeypatch.chdir(SAMPLE.parents[2])
    check(SAMPLE.read_text().replace("port: 8000", f"port: {free_port()}"))


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ({"model": MODEL, "replica": 2}, "args: replica=2: Extra inputs are not permitted"),
        ({"model": MODEL, "replicas": 0}, "args: replicas=0: Input should be greater than or"),
        ({"model": MODEL, "max_batch": "many"}, "args: max_batch='many': Input should be a valid"),
        ({"model": MODEL, "megapixels": float("inf")}, "args: megapixels=inf: Input should be a"),
        ({}, "config=None, model=None, .*: give exactly one of config and model"),
        ({"model": MODEL, "config": "a.py"}, "give exactly one of config and model"),
        ({"model": "make"}, "model='make', .*: give model as package.module:function"),
        ({"model": MODEL, "checkpoint": "a.pth"}, "checkpoint is only read with config"),
        ({"model": MODEL, "floor": 2}, "floor is only read with config"),
        ({"model": MODEL, "k": 2}, "k is only read with config or a budget"),
        ({"config": "a.py", "floor": 2}, "floor is a part of k; give k too"),
        ({"config": "a.py", "floor": 3, "k": 2}, "floor is above k"),
        ({"config": "a.py", "milliseconds": 40}, "milliseconds needs k, the lowest k of the"),
        ({"config": "a.py", "k": 2, "max_k": 4}, "max_k is of a budget; give milliseconds too"),
        ({"config": "a.py", "k": 5, "max_k": 4, "milliseconds": 9}, "max_k is below k"),
        ({"config": "a.py", "k": 5, "max_k": 0, "milliseconds": 9}, "max_k=0: Input should be gr"),
        ({"config": "gone.py"}, "args: config='gone.py' does not exist; give another path"),
        (["model"], r"args is \['model'\]; give settings by name"),
    ],
)
def test_arguments(check, args, sentence):
    text = service_yaml(free_port(), {"replicas": 1})
    text = text[: text.index("    args:")] + f"    args: {json.dumps(args)}\n"
    with pytest.raises(UserError, match=rf"service\.yaml: .*{sentence}"):
        check(text.replace("Infinity", ".inf"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("applications: [", r"is not YAML: .*line 1"),
        ("hello", "has no list `applications`; begin with"),
        ("applications: {}", "has no list `applications`"),
        ("", "has no list `applications`"),
        ("applications: [{}]\nhttp_options: [8000]", r"http_options is \[8000\]; give settings by"),
    ],
)
def test_files_that_are_of_no_service(check, text, sentence):
    with pytest.raises(UserError, match=sentence):
        check(text)


def test_a_file_in_another_encoding(tmp_path):
    from mmvitaccel.serving.ray_app.service_file import check_service

    (tmp_path / "service.yaml").write_bytes("applications: []".encode("utf-16"))
    with pytest.raises(UserError, match=r"service\.yaml .*UTF-16"):
        check_service(tmp_path / "service.yaml")


@pytest.mark.skipif(not socket.has_ipv6, reason="this system has no IPv6")
def test_an_address_of_ipv6(check):
    text = service_yaml(free_port(), {"model": MODEL})
    check(text.replace("127.0.0.1", '"::1"'))


def test_a_port_in_use(check):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"port {port} of '127\.0\.0\.1' is in use; give another"
        ):
            check(service_yaml(port, {"model": MODEL}))
    with pytest.raises(UserError, match=r"port 70000 of '127\.0\.0\.1' cannot be used"):
        check(service_yaml(70000, {"model": MODEL}))


def test_the_command_says_it(tmp_path, capsys):
    from mmvitaccel.serving.ray_app.__main__ import main

    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "gone.yaml")])
    assert "gone.yaml does not exist; give the YAML of a service" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--object-store-megabytes", "1"], "error: Ray does not start: "),
        (["--cpus", "1"], "its replicas reserve 3 cores (replicas times cpus) and Ray has 1;"),
    ],
)
def test_what_ray_has_no_room_for(tmp_path, options, sentence):
    text = service_yaml(free_port(), {"model": MODEL, "replicas": 2, "cpus": 1.5})
    (tmp_path / "service.yaml").write_text(text)
    command = [sys.executable, "-m", "mmvitaccel.serving.ray_app", tmp_path / "service.yaml"]
    done = subprocess.run(
        [*map(str, command), "--object-store-megabytes", "80", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert sentence in done.stderr and "Traceback" not in done.stderr
