/* Tests of plugin.c on this machine: here the test is the gateway. */
#undef NDEBUG
#include "moongate.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t inflight[3];
static bool tried[3];

void endpoints_inflight_all(mg_u32s *result) {
    *result = (mg_u32s){malloc(sizeof inflight), 3};
    memcpy(result->ptr, inflight, sizeof inflight);
}
bool endpoints_tried(uint32_t index) { return tried[index]; }

static void update(uint32_t a, uint32_t b, uint32_t c) {
    mg_endpoint endpoints[3] = {{.weight = a}, {.weight = b}, {.weight = c}};
    assert(plugin_update(0, (mg_endpoints){endpoints, 3}) == NULL);
}

static uint32_t pick(uint32_t a, uint32_t b, uint32_t c, uint64_t sequence, uint32_t attempt) {
    inflight[0] = a, inflight[1] = b, inflight[2] = c;
    return plugin_pick(0, sequence, 0, attempt);
}

int main(void) {
    char none[] = "{}", some[] = "{\"a\":\"b\"}";
    assert(strcmp(plugin_configure(0, (mg_string){some, strlen(some)}), "least-inflight has no options") == 0);
    assert(plugin_configure(0, (mg_string){none, strlen(none)}) == NULL);
    assert(pick(0, 0, 0, 0, 0) == MG_NO_OPINION && "no endpoints yet");

    update(1, 1, 1);
    assert(pick(3, 1, 2, 0, 0) == 1 && "the fewest in flight");
    for (uint64_t sequence = 0; sequence < 6; sequence++) assert(pick(1, 1, 1, sequence, 0) == sequence % 3 && "equals take turns");

    update(1, 0, 2);
    assert(pick(3, 1, 2, 0, 0) == 2 && "weight 0 is left out");
    tried[2] = true;
    assert(pick(3, 1, 2, 0, 1) == 0 && "a retry goes elsewhere");
    tried[0] = true;
    assert(pick(3, 1, 2, 0, 2) == MG_NO_OPINION && "all of them failed");
    memset(tried, 0, sizeof tried);
    update(0, 0, 0);
    assert(pick(3, 1, 2, 0, 0) == 1 && "all have weight 0: all count");
    puts("1 passed, 0 failed");
}
