"""What to do about an SQLite file below `.temper/` that cannot be used: is it damaged, or is it only not the moment?"""

import sqlite3
from pathlib import Path

from temper.aside import put_aside

# What SQLite says where the file may be as it should: locked, in a folder that may not be written, on a full disk.
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
    """Whether an error says something about what the file holds."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return isinstance(error, sqlite3.DatabaseError) and code & 0xFF not in _OF_THE_MOMENT  # the other bits are details


def put_database_aside(path: Path, expected: str, error: Exception) -> None:
    """Puts a damaged database aside, which must be closed, and says so.

    Its journal goes: SQLite would take it for one of the new file, and spoil that.

    Args:
        expected: what should have been there, such as "a cache of boxes".
        error: what was wrong with it.
    """
    for ending in ("-journal", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    put_aside(path, expected, str(error))
