"""histofold: from histology slides and images to fold-trained ensembles and a submission that Kaggle accepts."""

__version__ = "0.1.0"
