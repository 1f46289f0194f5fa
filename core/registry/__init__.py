"""Families: hook specifications, the facts they return, and the manager that loads them."""
