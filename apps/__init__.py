"""What a person or a server starts on finished models and experiments. No stage imports it."""
