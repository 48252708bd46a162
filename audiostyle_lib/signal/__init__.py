"""Audio files, features, augmentation, and the way back from mel spectrograms to phases; no model."""
