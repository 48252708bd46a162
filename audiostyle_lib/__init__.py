"""Executable companion to *Style Transfer in Audio*; the notebooks import this library.

Importing the package does no work. What users import most is found at the top, on first use::

    from audiostyle_lib import audio, features, transfer
"""

import importlib

__version__ = "0.1.0"

_AT_THE_TOP = {
    "audio": "signal.audio",
    "augment": "signal.augment",
    "features": "signal.features",
    "listen": "course.listen",
    "vocode": "vocoding",  # its name before the folders, for scripts that were written then
}


def __getattr__(name: str):
    if name not in _AT_THE_TOP:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f".{_AT_THE_TOP[name]}", __name__)
