"""What a service is told by its environment. Nothing has a default that would only work on somebody's own machine."""

from pydantic import Field, PostgresDsn
from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    """The registration has variables of its own: those of `pointsman register`."""

    database_url: PostgresDsn
    #: Connections to the database; PostgreSQL has 100 for all instances of all services.
    database_connections: int = Field(default=10, ge=1)
    listen_host: str = "0.0.0.0"
    listen_port: int = Field(default=8000, ge=1, le=65535)
    #: What requests in flight get between SIGTERM and the end of the registration.
    drain_seconds: float = Field(default=5.0, ge=0)
    log_level: str = "INFO"
