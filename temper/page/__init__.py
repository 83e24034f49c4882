"""The page for people: what the server and the page without a server share, and how the latter is put together."""
