"""The statistics behind a verdict: exact intervals, p-values, curves over all thresholds, the decision rule."""
