"""One fold of training: from the store to weights, curves and predictions of the unseen fold."""
