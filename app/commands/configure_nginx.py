"""Write the part of nginx's configuration that follows from the settings: ``python -m app.commands.configure_nginx``.

scripts/run-nginx calls it before every start of nginx.
"""

from __future__ import annotations

import os
import sys

from app.errors import SettingsError
from app.gateway.includes import write_includes
from app.settings import Settings


def main() -> None:
    """Write the files, or exit with the reason why not."""
    try:
        write_includes(Settings.from_env(os.environ))
    except SettingsError as error:
        sys.exit(f"the settings cannot be used:\n{error}")
    except OSError as error:
        sys.exit(f"nginx's configuration cannot be written: {error}")


if __name__ == "__main__":
    main()
