"""Context parallelism: ranks that have a share of each row's tokens."""
