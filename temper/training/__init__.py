"""How a phase trains: the loop over epochs, schedules, optimizers, losses, and the saved state of an unfinished run."""
