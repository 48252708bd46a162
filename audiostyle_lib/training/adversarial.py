"""Training of a generator against a discriminator in one backward pass.

Used through ``training.vocoders`` by ``notebooks/08_vocoding.ipynb`` and through
``training.recombination`` by ``audiostyle pretrain transfer``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..models.discriminators import discriminator_loss, feature_matching_loss, generator_loss


class Adversaries(nn.Module):
    """A generator and the discriminator that it is trained against.

    A subclass calls `losses_of_both` in its `forward`, which returns all losses by name. Both networks
    are one model, so that `loop.fit` trains both at once on the sum of all losses.

    Parameters
    ----------
    generator : torch.nn.Module
    discriminator : torch.nn.Module
        (audio [, what it belongs to, ...]) -> scores and layers, as ``models.discriminators`` has them.
    adversarial : float
        Weight of the generator's loss for being recognised.
    feature_matching : float
        Weight of the distance between the discriminator's layers; 0 leaves that loss out.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        adversarial: float,
        feature_matching: float,
    ):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.adversarial, self.feature_matching = adversarial, feature_matching

    def losses_of_both(self, real: Tensor, made: Tensor, *conditions: Tensor) -> dict[str, Tensor]:
        """Weighted losses of the discriminator and of the generator.

        The discriminator's loss gets `made` without its gradient, and the generator's losses get the
        discriminator's weights as constants. So one backward pass of the sum gives each network the
        gradient of its own losses only.

        Parameters
        ----------
        real, made : torch.Tensor [shape=(B, ...)]
        *conditions : torch.Tensor [shape=(B, ...)]
            Further inputs of the discriminator.

        Returns
        -------
        dict of str to torch.Tensor
            Scalars: ``discriminator``, ``generator`` and, unless left out, ``feature_matching``.
        """
        of_real = self.discriminator(real, *conditions)
        of_made = self.discriminator(made.detach(), *conditions)
        constant = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        judged = torch.func.functional_call(self.discriminator, constant, (made, *conditions))
        losses = {
            "discriminator": discriminator_loss(of_real, of_made),
            "generator": self.adversarial * generator_loss(judged),
        }
        if self.feature_matching:
            matched = feature_matching_loss(of_real, judged)
            losses["feature_matching"] = self.feature_matching * matched
        return losses


def step(model: Adversaries, batch: tuple) -> tuple[Tensor, dict[str, Tensor]]:
    """A `step` for `loop.fit`: the sum of all losses, and each by name."""
    losses = model(*batch)
    return torch.stack(list(losses.values())).sum(), {k: v.detach() for k, v in losses.items()}
