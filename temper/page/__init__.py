"""The web page: the files that the server's page shares with the page without a server, which is assembled here."""
