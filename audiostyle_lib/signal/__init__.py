"""Audio files, features, augmentation, and the way back from mel spectrograms to phases; no model."""

from ..paths import ensure_numba_cache

ensure_numba_cache()
