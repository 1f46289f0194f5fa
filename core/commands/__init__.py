"""What the command prints about itself: help, matrix, families, plan, environment."""
