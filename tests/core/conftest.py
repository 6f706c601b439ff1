from __future__ import annotations

import pytest

from mmvitaccel.core.compiled import kernels


@pytest.fixture
def kernel():
    """Skips where the kernels cannot be compiled."""
    if kernels() is None:
        pytest.skip("no C++ compiler: install one, or name it in CXX")
