"""Tells whether an SQLite file below `.temper/` is damaged or only unusable at the moment; puts damaged ones aside."""

import sqlite3
from pathlib import Path

from temper.aside import put_aside

# SQLite's errors that say nothing about the file's content: it is locked, its folder is read-only, the disk is full...
_OF_THE_MOMENT = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}


def is_damage(error: Exception) -> bool:
    """Whether an error means that the content of the file is damaged."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return isinstance(error, sqlite3.DatabaseError) and code & 0xFF not in _OF_THE_MOMENT  # higher bits are details


def put_database_aside(path: Path, expected: str, error: Exception) -> None:
    """Puts a damaged database aside and prints that it did. The database must be closed.

    Its journal is removed: SQLite would take it for the new file's journal and damage that file too.

    Args:
        expected: what should have been there, such as "a cache of boxes".
        error: what was wrong with it.
    """
    for ending in ("-journal", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    put_aside(path, expected, str(error))
