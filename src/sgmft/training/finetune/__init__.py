"""Fine-tuning: training goes on through the encoder, by LoRA or in all its weights."""
