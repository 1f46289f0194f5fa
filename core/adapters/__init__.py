"""Adapters: small trained additions to a frozen model, as transformations of the built network."""
