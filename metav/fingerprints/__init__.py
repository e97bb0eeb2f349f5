"""The fingerprint as a value, its file, and its commitment; reading one needs no PyTorch."""
