"""What a record says of the machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from mmvitaccel.records.machine import CpuWatch, cpu_name, describe_machine, describe_versions


def test_name_of_the_cpu(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: A CPU\n\n")
    assert cpu_name(cpuinfo) == "A CPU (family 25, model 1)"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Another\n")
    assert cpu_name(cpuinfo) == "Another"
    assert cpu_name(tmp_path / "nothing")


def test_machine_and_versions():
    machine = describe_machine()
    assert machine["threads"] == torch.get_num_threads()
    assert (machine["gpu"] is None) == (not torch.cuda.is_available())
    versions = describe_versions()
    assert versions["torch"] == torch.__version__.partition("+")[0]
    assert all(isinstance(version, str) for version in versions.values())


def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells")
def test_own_time_is_not_that_of_others(monkeypatch):
    monkeypatch.setattr("mmvitaccel.records.machine.os.cpu_count", lambda: 2)
    readings = iter([(10.0, 100.0, 7.0), (20.0, 112.0, 16.0)])
    monkeypatch.setattr(CpuWatch, "_read", staticmethod(lambda: next(readings)))
    # 12 of 20 seconds of both cores were busy, 9 of them with this process
    assert CpuWatch().share_of_others() == pytest.approx(0.15)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells")
def test_readings_grow_with_work():
    before = CpuWatch._read()
    spin(0.1)
    after = CpuWatch._read()
    assert after[2] - before[2] >= 0.09
    assert after[1] - before[1] >= 0.05  # in steps of a clock tick
    assert after[0] > before[0]
