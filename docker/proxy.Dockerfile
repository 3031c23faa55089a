# Caddy without root: it listens above 1024, and its certificates' folder is its own.
FROM caddy:2.10.0-alpine
# A copy is without the file's capability to listen below 1024, which could not be run where none may be gained.
RUN cp /usr/bin/caddy /tmp/caddy && mv /tmp/caddy /usr/bin/caddy \
    && mkdir -p /data /config && chown 10001:10001 /data /config
COPY docker/Caddyfile /etc/caddy/Caddyfile
ENV XDG_DATA_HOME=/data XDG_CONFIG_HOME=/tmp
USER 10001:10001
EXPOSE 8080 8443
VOLUME /data
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
