"""report: what a change does to the model, as Markdown for a pull request."""
