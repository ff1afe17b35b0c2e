/* Tests of plugin.c on this machine: here the test is the gateway. */
#undef NDEBUG
#include "moongate.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t inflight[8], latency[8];
static bool tried[8];

uint32_t endpoints_inflight(uint32_t index) { return inflight[index]; }
uint32_t endpoints_latency_us(uint32_t index) { return latency[index]; }
bool endpoints_tried(uint32_t index) { return tried[index]; }

static const char *configure(uint32_t binding, const char *json) {
    return plugin_configure(binding, (mg_string){(char *)json, strlen(json)});
}

static void update(uint32_t binding, const uint32_t *weights, size_t count) {
    mg_endpoint endpoints[8] = {0};
    for (size_t i = 0; i < count; i++) endpoints[i].weight = weights[i];
    assert(plugin_update(binding, (mg_endpoints){endpoints, count}) == NULL);
}

static void refused(const char *json, const char *words) {
    const char *error = configure(9, json);
    if (!error || !strstr(error, words)) {
        fprintf(stderr, "%s: %s\n", json, error ? error : "accepted");
        abort();
    }
}

int main(void) {
    refused("[]", "must be a table");
    refused("{\"bye\":\"latency\"}", "unknown field `bye`, expected `by`");
    refused("{\"by\":\"weight\"}", "`by` is `weight`: it must be");
    refused("{\"by\":1}", "`by` must be a text");

    assert(configure(0, "{}") == NULL);
    assert(configure(1, " { \"by\" : \"latency\" } ") == NULL);
    assert(plugin_pick(1, 0, 0, 0) == MG_NO_OPINION && "no endpoints yet");

    uint32_t ones[] = {1, 1}, mixed[] = {0, 3, 0, 1}, zeros[] = {0, 0};
    update(0, ones, 2);
    update(1, ones, 2);
    inflight[0] = 5, inflight[1] = 4, latency[0] = 10, latency[1] = 20;
    for (uint64_t random = 0; random < 4; random++) {
        assert(plugin_pick(0, 0, random, 0) == 1 && "the fewest in flight");
        assert(plugin_pick(1, 0, random, 0) == 0 && "the fastest: each binding has its own options");
    }

    update(0, mixed, 4);
    int seen[8] = {0};
    memset(inflight, 0, sizeof inflight);
    for (uint64_t random = 0; random < 100; random++) seen[plugin_pick(0, 0, random | random << 32, 0)]++;
    assert(seen[0] == 0 && seen[2] == 0 && seen[1] == 50 && seen[3] == 50 && "weight 0 is left out");
    tried[1] = true;
    for (uint64_t random = 0; random < 4; random++) assert(plugin_pick(0, 0, random, 1) == 3 && "a retry goes elsewhere");
    tried[3] = true;
    assert(plugin_pick(0, 0, 0, 2) == MG_NO_OPINION && "all of them failed");

    memset(tried, 0, sizeof tried);
    update(0, zeros, 2);
    assert(plugin_pick(0, 0, 0, 0) < 2 && "all have weight 0: all count");
    update(0, zeros, 0);
    assert(plugin_pick(0, 0, 0, 0) == MG_NO_OPINION);
    puts("1 passed, 0 failed");
}
