"""Serving: an OpenAI-compatible API, the seed's own, and a page for people."""
