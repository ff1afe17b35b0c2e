#!/usr/bin/env python3
"""A steady stream of requests at one port, until its standard input ends; then what became of them, as one line of JSON.

    load.py URL [CONNECTIONS]

Each connection sends a request, waits for the whole answer, and sends the next 5 ms later, over a new connection every 20th time.
A connection that was kept alive and is found closed before any byte of an answer came is opened anew once, as every client
does (RFC 9112, section 9.3.1). Anything else than 200 is a failure.
"""
import collections
import http.client
import json
import sys
import threading
import time
import urllib.parse

url = urllib.parse.urlsplit(sys.argv[1])
connections = int(sys.argv[2]) if len(sys.argv) > 2 else 8
over = threading.Event()
lock = threading.Lock()
good, failures, slowest = 0, collections.Counter(), 0.0


def ask(connection, used):
    """Status and body, and whether a kept-alive connection had to be replaced."""
    try:
        connection.request("GET", url.path)
        response = connection.getresponse()
    except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
        if not used:
            raise
        connection.close()
        connection.request("GET", url.path)
        response = connection.getresponse()
    response.read()
    return response.status


def stream():
    global good, slowest
    connection, served = None, 0
    while not over.is_set():
        if connection is None:
            connection, served = http.client.HTTPConnection(url.hostname, url.port, timeout=20), 0
        began = time.monotonic()
        try:
            status = ask(connection, served > 0)
            outcome = None if status == 200 else f"status {status}"
        except Exception as error:  # whatever went wrong is a failure, by its name
            outcome = type(error).__name__
            connection.close()
            connection = None
        with lock:
            slowest = max(slowest, time.monotonic() - began)
            if outcome is None:
                good += 1
            else:
                failures[outcome] += 1
        served += 1
        if served >= 20 and connection is not None:
            connection.close()
            connection = None
        time.sleep(0.005)


threads = [threading.Thread(target=stream) for _ in range(connections)]
for thread in threads:
    thread.start()
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
print(json.dumps({"good": good, "failed": sum(failures.values()), "why": failures, "slowest_ms": round(slowest * 1000)}))
