"""The embedded corpus: music composed by rules in GTZAN's ten genres, and rendered where it is needed.

A piece is made of two halves that are drawn independently. A `Score` is the *content*: tempo, key,
chords, melody and form. A `Style` is one band of a genre: instruments, grooves, comping, bass figure,
swing, articulation and mix. `arrange` plays any score in any style, so the same content exists in two
styles, note for note: the ground truth for style transfer that recorded music lacks. Explained in
``notebooks/01_data.ipynb``.

`genres` holds the musical tables, `score` composes, `arrange` writes the parts, `synth` plays them,
`corpus` writes a corpus to disk, `lattice` renders pairs; `soundfont` and `instruments` prepare the
sounds, `workers` watches over the processes that render.
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
