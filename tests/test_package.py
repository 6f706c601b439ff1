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


def test_an_installation_with_mmaction2_alone():
    pytest.importorskip("mmaction")
    code = (
        "import sys; sys.modules['mmdet'] = None\n"
        "import mmvitaccel\n"
        "from mmengine.registry import HOOKS, METRICS, MODELS, TRANSFORMS\n"
        "import mmaction.models, mmaction.datasets\n"
        "for registry, name in ((MODELS, 'ViViT'), (MODELS, 'ToMe'), (TRANSFORMS, 'OpenVideo'),\n"
        "                       (HOOKS, 'EventfulHook'), (METRICS, 'VerbNounAccuracy')):\n"
        "    print(registry.get(f'mmvitaccel.{name}').__name__)\n"
        "print(sys.modules['mmdet'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == (
        ["ViViT", "ToMe", "OpenVideo", "EventfulHook", "VerbNounAccuracy", "None"]
    )
