"""Converts the released ImageNet VID and DET annotations to CocoVID JSON files."""

from mmvitaccel.datasets.ilsvrc.convert import OUTPUT_FILES, convert
from mmvitaccel.datasets.ilsvrc.report import MissingFilesError

__all__ = ["OUTPUT_FILES", "MissingFilesError", "convert"]
