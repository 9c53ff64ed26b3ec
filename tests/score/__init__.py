"""The scoreboard: detectors on data nobody here wrote, beside plain baselines (`make scoreboard`)."""
