"""A reproducibility pipeline for adversarial training."""
