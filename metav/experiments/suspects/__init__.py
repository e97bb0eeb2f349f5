"""The test suspects of an experiment: which there are, how they are trained, and how they can be asked."""
