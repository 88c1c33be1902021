"""What every service of the landscape has: settings, logs, metrics, trace context, health, a database, a registration.

A service brings its settings and its routes, and `service.build` makes an application of them.
"""
