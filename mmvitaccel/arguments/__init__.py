"""Checks of arguments: one sentence with the owner, the argument, its value and what is allowed.

Each check returns the value as the plain Python type that it stands for. Numbers may be numpy's, a
whole number may be written as a float (8.0), and a tuple may be a list, as config files have it. A
bool is no number, and a text is never read as one: ``'False'`` would be true and ``'8'`` no 8.

Arguments of every check:
    owner: The class or the method to which the argument belongs, as users call it.
    name: The argument.
    value: What was given.
    or_none: Whether None is allowed too; it is given back as it is.
    why: A further half-sentence, such as what to do.
"""

from mmvitaccel.arguments.amounts import number, numbers, whole_number, whole_numbers
from mmvitaccel.arguments.names import flag, known_names, one_of, path, text
from mmvitaccel.arguments.objects import config, init_config, sequence, with_methods
from mmvitaccel.arguments.sentence import refuse, shown

__all__ = [
    "config",
    "flag",
    "init_config",
    "known_names",
    "number",
    "numbers",
    "one_of",
    "path",
    "refuse",
    "sequence",
    "shown",
    "text",
    "whole_number",
    "whole_numbers",
    "with_methods",
]
