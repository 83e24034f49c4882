"""Downloads from addresses."""
