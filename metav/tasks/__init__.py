"""What a model does: its data, bounds, loss and training (classification, regression, generation, or your own)."""
