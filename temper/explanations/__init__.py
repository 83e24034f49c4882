"""What a model looks at, and what its layers look for."""
