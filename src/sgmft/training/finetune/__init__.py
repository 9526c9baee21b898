"""Fine-tuning: training goes on through the encoder, by LoRA or in all its weights."""

from sgmft.training.finetune.settings import Tuning

__all__ = ["Tuning"]
