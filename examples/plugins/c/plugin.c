/* Picks the endpoint with the fewest requests in flight. All counts come in one call of the gateway, which from three
 * endpoints on is cheaper than one call for each. There are no options. */
#include "moongate.h"

#include <stdlib.h>
#include <string.h>

/* What one use of the plugin goes by: for each endpoint, whether it may be picked. */
typedef struct { bool *eligible; size_t count; } state;

/* Bindings are small numbers, so the list is one that is indexed by them. */
static state *states;
static size_t bindings;

const char *plugin_configure(uint32_t binding, mg_string config) {
    static mg_options options;
    options = (mg_options){.rest = config};
    if (mg_next_option(&options) != 0) return "least-inflight has no options";
    if (binding >= bindings) {
        state *more = realloc(states, (binding + 1) * sizeof *states);
        if (!more) return "out of memory";
        memset(more + bindings, 0, (binding + 1 - bindings) * sizeof *states);
        states = more;
        bindings = binding + 1;
    }
    free(states[binding].eligible); /* what the number meant before is over */
    states[binding] = (state){0};
    return NULL;
}

const char *plugin_update(uint32_t binding, mg_endpoints endpoints) {
    bool *eligible = malloc(endpoints.len + 1), weighted = false;
    if (!eligible) return "out of memory";
    for (size_t i = 0; i < endpoints.len; i++) weighted |= endpoints.ptr[i].weight > 0;
    /* Weight 0 means: only where every endpoint has 0. */
    for (size_t i = 0; i < endpoints.len; i++) eligible[i] = !weighted || endpoints.ptr[i].weight > 0;
    free(states[binding].eligible);
    states[binding] = (state){eligible, endpoints.len};
    return NULL;
}

uint32_t plugin_pick(uint32_t binding, uint64_t sequence, uint64_t random, uint32_t attempt) {
    (void)random;
    const state *s = &states[binding];
    mg_u32s inflight;
    endpoints_inflight_all(&inflight);
    uint32_t best = MG_NO_OPINION;
    size_t count = inflight.len < s->count ? inflight.len : s->count;
    for (size_t step = 0; step < count; step++) {
        /* Where the search begins is whose turn it is: so idle endpoints take turns. */
        uint32_t index = (uint32_t)((sequence + step) % count);
        if (!s->eligible[index] || (attempt > 0 && endpoints_tried(index))) continue;
        if (best == MG_NO_OPINION || inflight.ptr[index] < inflight.ptr[best]) best = index;
    }
    if (inflight.len) free(inflight.ptr);
    return best;
}
