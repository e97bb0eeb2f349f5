"""The fingerprint as a value, its file, and its commitment, a digest to publish; reading one needs no PyTorch."""
