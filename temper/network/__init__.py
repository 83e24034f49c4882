"""What is fetched by address."""
