"""The app `queue`: DVC's queue of experiments over HTTP, with a page for people, and its repair after a crash."""
