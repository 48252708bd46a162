"""Thin library behind the notebooks of the executable companion to *Style Transfer in Audio*.

Importing the package does no work: torch, librosa and matplotlib are imported by the modules that
use them (``features``, ``training``, ``plots`` ...), so import what you need::

    from audiostyle_lib import corpora, features, record
"""

__version__ = "0.1.0"
