"""Running an experiment: models, regimes, fingerprints and rivals, one record a run."""
