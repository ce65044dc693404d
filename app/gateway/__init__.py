"""The gateway: the part of nginx's configuration that follows from the settings."""
