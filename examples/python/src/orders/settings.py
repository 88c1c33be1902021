"""What this service is told beside what every service is."""

from pydantic import HttpUrl

from chassis.settings import Settings


class OrdersSettings(Settings):
    #: Where the other services are: behind the proxy, all of them.
    gateway_url: HttpUrl
