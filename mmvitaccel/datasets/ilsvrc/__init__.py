"""Converts the released ImageNet VID and DET annotations to CocoVID JSON files."""

from mmvitaccel.datasets.ilsvrc.convert import OUTPUT_FILES, MissingFilesError, convert

__all__ = ["OUTPUT_FILES", "MissingFilesError", "convert"]
