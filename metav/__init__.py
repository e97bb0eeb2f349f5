"""Fingerprints of trained models: was this suspect derived from mine?"""
