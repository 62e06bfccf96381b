"""From checkpoints to predictions: torch, numpy and rasterio, and neither Hydra, Lightning nor the training code."""
