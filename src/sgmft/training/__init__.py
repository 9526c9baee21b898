"""The training loop, checkpoints, fine-tuning and contrastive alignment."""
