"""The architectures of the experiments, one file a task: the owner's, those of its zoo, and the suspects' own."""
