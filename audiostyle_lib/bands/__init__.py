"""The embedded corpus: music composed in GTZAN's ten genres and rendered on the spot.

A piece is made of two halves that are drawn apart: a `Score` is the content, a `Style` is one band of
a genre. `arrange` plays any score in any style. Notebook 01.
"""

from .arrange import Style, arrange, draw_style, programs, reorchestrate
from .corpus import render, write_corpus
from .genres import GENRES, ROLES, SPLITS
from .score import Score, compose

__all__ = [
    "GENRES",
    "ROLES",
    "SPLITS",
    "Score",
    "Style",
    "arrange",
    "compose",
    "draw_style",
    "programs",
    "render",
    "reorchestrate",
    "write_corpus",
]
