# Stands in for zookeeper:3.8 where no image can be pulled: the distribution's ZooKeeper, told by the variables of that image what
# it needs here (ZOO_MY_ID, ZOO_SERVERS, ZOO_4LW_COMMANDS_WHITELIST).
ARG BASE
FROM ${BASE}
# The scripts of the Java package want these directories to be there.
RUN mkdir -p /usr/share/man/man1 && apt-get update -q \
    && apt-get install -y -q --no-install-recommends zookeeper default-jre-headless && rm -rf /var/lib/apt/lists/*
COPY zookeeper.sh /zookeeper.sh
RUN useradd --system --uid 1000 zoo && mkdir -p /data && chown zoo /data
USER zoo
VOLUME /data
EXPOSE 2181 2888 3888
ENTRYPOINT ["bash", "/zookeeper.sh"]
