"""`python -m users`: one instance."""

from chassis import service
from chassis.settings import Settings

from .api import routes

if __name__ == "__main__":
    settings = Settings()
    service.run(service.build("users", settings, routes), settings)
