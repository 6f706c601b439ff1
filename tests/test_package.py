import subprocess
import sys

import pytest

import mmvitaccel


@pytest.mark.parametrize("name", [n for n in mmvitaccel.__all__ if not n.startswith("_")])
def test_public_names_are_there(name):
    assert getattr(mmvitaccel, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'EfficientVit'"):
        mmvitaccel.EfficientVit  # noqa: B018  (the look-up is what is tested)


def test_the_import_is_light():
    code = (
        "import sys, mmvitaccel; "
        "print([n for n in ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmaction', 'timm') "
        "if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
