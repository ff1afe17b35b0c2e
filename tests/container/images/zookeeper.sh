#!/usr/bin/env bash
# Writes the configuration from the variables of the official image, and becomes the server.
set -euo pipefail
echo "${ZOO_MY_ID:?}" >/data/myid
{
    printf 'dataDir=/data\ntickTime=2000\ninitLimit=10\nsyncLimit=5\nadmin.enableServer=false\n'
    printf '4lw.commands.whitelist=%s\n' "${ZOO_4LW_COMMANDS_WHITELIST:-srvr}"
    # Server lines with the port for clients behind the semicolon need the newer way of configuring.
    printf 'reconfigEnabled=true\nstandaloneEnabled=false\n'
    tr ' ' '\n' <<<"${ZOO_SERVERS:?}"
} >/data/zoo.cfg
printf 'log4j.rootLogger=WARN, out\nlog4j.appender.out=org.apache.log4j.ConsoleAppender\nlog4j.appender.out.layout=org.apache.log4j.PatternLayout\nlog4j.appender.out.layout.ConversionPattern=%%d %%-5p %%c{1}: %%m%%n\n' >/data/log4j.properties
exec java -Xmx192m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dlog4j.configuration=file:/data/log4j.properties \
    -cp "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-log4j12.jar:/usr/share/java/log4j-1.2.jar" \
    org.apache.zookeeper.server.quorum.QuorumPeerMain /data/zoo.cfg
