"""How published files are read: archives, folders and their layouts, downloads, tables of addresses."""
