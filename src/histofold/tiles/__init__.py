"""From slides and images to examples: the grid, the store, folds, samplers, augmentation, datasets."""
