"""Readers and writers of foreign weight files, and the name maps between them and ours."""
