"""The stage `export`: the fine-tuned classifier in the formats of other runtimes, each compared with the original."""
