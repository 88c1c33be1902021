"""The whole landscape on this machine, without containers: PostgreSQL, etcd, Pointsman and the services.

Everything lies in one temporary folder and listens on free ports of 127.0.0.1; nothing is left behind.
"""
