"""What only a GPU can show; skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from audiostyle_lib.models import checkpoint
from audiostyle_lib.models.vae import ConvVAE
from audiostyle_lib.signal import features
from audiostyle_lib.training import content

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def test_features_are_those_of_the_cpu(clip, config):
    x = torch.from_numpy(clip(2.0))[None]
    for function, tolerance in ((features.log_mel, 0.02), (features.style_features, 0.1)):
        ours = function(x.cuda(), config).cpu()
        assert_close(ours, function(x, config), atol=tolerance, rtol=1e-4)


@pytest.mark.parametrize("replayed", [True, False])
def test_a_replayed_step_trains_as_one_on_the_cpu(tmp_path, config, monkeypatch, replayed):
    """Twelve steps in three epochs, the second of which begins with recorded graphs."""
    log_mels = [torch.randn(128, 300, generator=torch.Generator().manual_seed(k)) for k in range(3)]

    def train(device: str):
        torch.manual_seed(0)
        model = ConvVAE(channels=32, latent_channels=32)
        path = tmp_path / f"{device}.safetensors"
        curves = content.fit(
            model, path=path, log_mels=[x.to(device) for x in log_mels], probes={}, steps=12,
            steps_per_epoch=4, config=config, arguments={}, data={}, seed=0, device=device, varied=0.0,
        )  # fmt: skip
        return curves, checkpoint.read_tensors(path, prefix="model.")

    if not replayed:
        monkeypatch.setattr(content.loop, "_Replayed", lambda one_step: one_step)
    (ours, weights), (theirs, others) = train("cuda"), train("cpu")
    assert ours["train_error"] == pytest.approx(theirs["train_error"], rel=0.02)
    assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=0.1)
    assert weights.keys() == others.keys()
