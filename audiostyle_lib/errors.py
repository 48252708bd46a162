"""What a user can mend: the command line prints it in one line, a notebook shows it by its name."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input; the message is one line: what is wrong, with which file or option, what to do."""


class AudioError(InputError):
    """Audio that cannot be used; the message names the clip and the reason."""


class AudioWarning(UserWarning):
    """Audio that is used, but not as a user may expect; the command line prints it in one line."""
