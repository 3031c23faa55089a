# Caddy without root: its certificates' folder is its own; the compose file lets every user listen on 80 and 443.
FROM caddy:2.10.0-alpine
# A copy is without the file's capability: where none may be gained, a file that has one cannot be run.
RUN cp /usr/bin/caddy /tmp/caddy && mv /tmp/caddy /usr/bin/caddy \
    && mkdir -p /data /config && chown 10001:10001 /data /config
COPY docker/Caddyfile /etc/caddy/Caddyfile
ENV XDG_DATA_HOME=/data XDG_CONFIG_HOME=/tmp
USER 10001:10001
EXPOSE 80 443
VOLUME /data
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
