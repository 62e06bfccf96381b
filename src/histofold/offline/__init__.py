"""The way from test samples to submission.csv in a notebook without a network: neither Hydra nor training code."""
