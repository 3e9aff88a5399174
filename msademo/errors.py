"""The one exception whose text is meant for the person using msademo, and how such a text quotes what they gave."""

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 2


class InputError(ValueError):
    """Something the user gave cannot be used. The message is one sentence: what is wrong and what to do."""


def shown(value) -> str:
    """A value as a sentence quotes it: as Python writes it, with its middle left out where it is long."""
    return _SHORT.repr(value)
