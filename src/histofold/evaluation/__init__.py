"""From OOF predictions to scores that can be trusted: thresholds, cross-fitting, intervals, ensembles, leaderboard."""
