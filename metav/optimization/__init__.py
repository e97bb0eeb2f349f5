"""The joint optimisation: options, queries, candidates for the meta-verifier, and their cross-fitted training."""
