"""Gaps of the installed OpenMMLab stack, closed before mmdet or mmaction2 is imported."""


def apply() -> None:
    """Close every gap that this environment has; a second call changes nothing."""
