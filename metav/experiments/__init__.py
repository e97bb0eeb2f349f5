"""Experiments on real data: `metav reproduce` runs them; README.md beside this file says what they are."""
