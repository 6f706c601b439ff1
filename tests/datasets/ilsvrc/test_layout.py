"""Frames of a release by the numbers in their names."""

import pytest

from mmvitaccel.datasets.ilsvrc.layout import find_release, find_videos


def test_a_number_with_a_decimal_point_is_no_frame(tmp_path):
    for root, suffix in (("Annotations", "xml"), ("Data", "JPEG")):
        folder = tmp_path / root / "VID/val/a"
        folder.mkdir(parents=True)
        (folder / f"frame0.5.{suffix}").touch()
    release = find_release(tmp_path, "VID")
    with pytest.raises(ValueError, match=r"the frame frame0\.5 has a decimal point in its number"):
        find_videos(release, "val", from_folders=True)
