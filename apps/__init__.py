"""Programs that people or servers run on finished models and experiments. No stage imports them."""
