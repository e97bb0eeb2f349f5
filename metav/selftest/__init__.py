"""Tests that need nothing but what is installed: `python -m metav.selftest`, or `pytest --pyargs metav.selftest`."""
