"""Sizes in the xml files of the release."""

import pytest

from mmvitaccel.datasets.ilsvrc.records import read_annotation

XML = "<annotation><size><width>{}</width><height>{}</height></size></annotation>"


@pytest.mark.parametrize(("width", "height"), [(0, 0), (0, 480), (640, 0), (-1, 480), (0.5, 9)])
def test_a_picture_without_a_pixel_is_refused(tmp_path, width, height):
    path = tmp_path / "000000.xml"
    path.write_text(XML.format(width, height))
    said = rf"<annotation>'s size is {int(width)} x {int(height)} pixels .*, which no picture has"
    with pytest.raises(ValueError, match=said):
        read_annotation(path)
    path.write_text(XML.format(1, 1))
    assert (read_annotation(path).width, read_annotation(path).height) == (1, 1)
