"""`python -m orders`: one instance."""

from chassis import service

from .api import routes
from .settings import OrdersSettings

if __name__ == "__main__":
    settings = OrdersSettings()
    gateway_url = str(settings.gateway_url)
    service.run(service.build("orders", settings, lambda parts: routes(parts, gateway_url)), settings)
