# A Redis from Debian's packages, for where no registry can be reached: in place of the image `redis`, with its folder and user id.
#
#   docker build -f deploy/docker/redis.Dockerfile -t atoll-redis deploy/docker
ARG BASE=debian:bookworm-slim
FROM ${BASE}
# Nothing is downloaded where BASE has it.
RUN set -eu; \
    command -v redis-server > /dev/null \
    || { apt-get update && apt-get install -y --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/*; }; \
    install -d -o 999 -g 999 /data
USER 999:999
WORKDIR /data
VOLUME /data
EXPOSE 6379
CMD ["redis-server"]
