"""The one exception whose text is meant for the person using msademo."""


class InputError(ValueError):
    """Something the user gave cannot be used. The message is one sentence: what is wrong and what to do."""
