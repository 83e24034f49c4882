"""DVC's queue of experiments over HTTP, with a page for people, and its repair: `python -m apps.queue`."""
