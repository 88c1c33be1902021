# Stand-ins for the images that docker-compose.yml and the Dockerfiles name, from Debian's packages, where no registry can be
# reached. Each keeps what the compose file relies on of the real one: commands, variables, paths. Built by images.sh, from a
# folder with the authorities, the toolchain and the crates of this machine.
FROM debian:bookworm-slim AS packages
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
RUN apt-get update && echo 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };' >/etc/apt/apt.conf.d/no-archives

FROM packages AS rust
RUN apt-get install -y --no-install-recommends build-essential
COPY toolchain /usr/local
COPY cargo /opt/cargo
ENV CARGO_HOME=/opt/cargo CARGO_NET_OFFLINE=true

FROM packages AS python
RUN apt-get install -y --no-install-recommends python3-venv && ln -s /usr/bin/python3 /usr/local/bin/python
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt

FROM packages AS etcd
RUN apt-get install -y --no-install-recommends etcd-server etcd-client
ENV ETCDCTL_API=3
CMD ["etcd"]

FROM packages AS postgres
RUN apt-get install -y --no-install-recommends postgresql
COPY postgres.sh /usr/local/bin/postgres.sh
ENV PGDATA=/var/lib/postgresql/data
STOPSIGNAL SIGINT
ENTRYPOINT ["postgres.sh"]

FROM packages AS prometheus
RUN apt-get install -y --no-install-recommends prometheus && install -d -o nobody /prometheus
USER nobody
ENTRYPOINT ["prometheus"]
