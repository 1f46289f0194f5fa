"""Options: their declaration, where each value came from, and the checks across them."""
