"""Write the part of nginx's configuration that follows from the settings: ``python -m app.commands.configure_nginx``.

scripts/run-nginx calls it before every start of nginx.
"""

from __future__ import annotations

import logging.config
import os
import sys

from app.errors import SettingsError
from app.gateway.includes import write_includes
from app.gateway.summary import summarize
from app.logs import logging_config
from app.settings import Settings


def main() -> None:
    """Write the files, or exit with the reason why not."""
    try:
        settings = Settings.from_env(os.environ)
        write_includes(settings)
    except SettingsError as error:
        sys.exit(f"the settings cannot be used:\n{error}")
    except OSError as error:
        sys.exit(f"nginx's configuration cannot be written: {error}")
    logging.config.dictConfig(logging_config(settings.log_level))
    logging.getLogger("gateway").info("%s", summarize(settings))


if __name__ == "__main__":
    main()
