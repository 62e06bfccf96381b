"""From an ensemble to predictions, labels and a submission with its provenance."""
