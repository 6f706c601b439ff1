"""ImageNet VID and DET as they were released, turned into CocoVID json files."""

from mmvitaccel.datasets.ilsvrc.convert import OUTPUT_FILES, MissingFilesError, convert

__all__ = ["OUTPUT_FILES", "MissingFilesError", "convert"]
