"""Keys and passwords that only root may read: systemd hands the service a copy that lies in memory.

The site file names the file itself, `/etc/pondwatch/secrets/NAME`, so that `pondwatch check` by root and the
core mean the same one. Source: systemd.exec(5), LoadCredential= with a folder: each file becomes
`$CREDENTIALS_DIRECTORY/ID_NAME`.
"""

from __future__ import annotations

import os
from pathlib import Path

_SECRETS = Path("/etc/pondwatch/secrets")
_ID = "secrets"


def handed(name: str) -> str:
    """Where the file called `name` in the site file is to be read: the copy handed over, if there is one."""
    given = os.environ.get("CREDENTIALS_DIRECTORY", "")
    path = Path(name)
    if given and path.parent == _SECRETS:
        copy = Path(given) / f"{_ID}_{path.name}"
        if copy.is_file():
            return str(copy)
    return name


def first_line(name: str) -> str | None:
    """What a secret is: the first line of its file; None without a name.

    Raises:
        OSError: the file cannot be read.
    """
    return Path(handed(name)).read_text().partition("\n")[0] if name else None


def is_there(name: str) -> bool:
    """Whether there is such a file for us to read."""
    return os.access(handed(name), os.R_OK) and Path(handed(name)).is_file()


def missing(name: str) -> str:
    """What is to be said of a file that is not there for us, with the remedy."""
    path = Path(name)
    if not path.is_absolute():
        return f"there is no file {name}; give its whole path"
    if os.environ.get("CREDENTIALS_DIRECTORY") and path.parent == _SECRETS:
        return f"{name} was not handed over; is it there, systemctl restart pondwatch does so"
    return f"there is no file {name}"
