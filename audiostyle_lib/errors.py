"""What a user can mend: the command line prints it in one line, a notebook shows it by its name."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input; the message is one line: what is wrong, with which file or option, what to do."""
