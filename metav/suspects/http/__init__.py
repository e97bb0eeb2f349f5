"""Suspects behind an address: one file per protocol, over one connection that keeps the limits (extra "http")."""
