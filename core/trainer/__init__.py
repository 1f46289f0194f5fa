"""Loop, step, optimizer, schedule, checkpoint, and the training tasks."""
