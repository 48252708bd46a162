"""What a learned system has to beat. Each returns a gain in dB for the content's log-mel."""

from __future__ import annotations

from torch import Tensor


def ltas_eq(content: Tensor, style: Tensor) -> Tensor:
    """Long-term average spectrum equaliser: gain (B, n_mels, 1) from log-mels in dB (B, n_mels, T).

    One fixed gain per band that gives the content the style's mean power in that band.
    """

    def mean_power_db(log_mel: Tensor) -> Tensor:
        return 10 * (10 ** (log_mel / 10)).mean(dim=2, keepdim=True).log10()

    return mean_power_db(style) - mean_power_db(content)
