"""Attacks on fingerprints beyond the obfuscations of the zoo, each from its paper."""
