"""The networks. Inputs are log-mel spectrograms in dB, (B, n_mels, T); each module states the rest."""
