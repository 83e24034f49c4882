"""How a phase trains: batches, augmentation, schedules, optimizers, the loop itself, and its unfinished state."""
