/* Of two endpoints taken at random, the one that is less loaded (Mitzenmacher, "The Power of Two Choices in Randomized
 * Load Balancing", 2001): nearly as even as asking all of them, and without the herd that runs to the same one.
 *
 * Option: by = "inflight" (the default; requests in flight) or "latency" (mean time to the response head). */
#include "moongate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What one use of the plugin goes by. Bindings are small numbers, so the list is one that is indexed by them. */
typedef struct {
    bool by_latency;
    uint32_t *choices; /* indices of the endpoints that may be picked */
    size_t count;
} state;

static state *states;
static size_t bindings;

const char *plugin_configure(uint32_t binding, mg_string config) {
    static char error[1200];
    state configured = {0};
    mg_options options = {.rest = config};
    int read;
    while ((read = mg_next_option(&options)) == 1) {
        if (strcmp(options.key, "by") != 0) {
            snprintf(error, sizeof error, "unknown field `%s`, expected `by`", options.key);
            return error;
        }
        configured.by_latency = strcmp(options.value, "latency") == 0;
        if (!configured.by_latency && strcmp(options.value, "inflight") != 0) {
            snprintf(error, sizeof error, "`by` is `%s`: it must be `inflight` or `latency`", options.value);
            return error;
        }
    }
    if (read < 0) {
        snprintf(error, sizeof error, "%s", options.value);
        return error;
    }
    if (binding >= bindings) {
        state *more = realloc(states, (binding + 1) * sizeof *states);
        if (!more) return "out of memory";
        memset(more + bindings, 0, (binding + 1 - bindings) * sizeof *states);
        states = more;
        bindings = binding + 1;
    }
    free(states[binding].choices); /* what the number meant before is over */
    states[binding] = configured;
    return NULL;
}

const char *plugin_update(uint32_t binding, mg_endpoints endpoints) {
    state *s = &states[binding];
    bool weighted = false;
    for (size_t i = 0; i < endpoints.len; i++) weighted |= endpoints.ptr[i].weight > 0;
    uint32_t *choices = malloc((endpoints.len + 1) * sizeof *choices);
    if (!choices) return "out of memory";
    free(s->choices);
    s->choices = choices;
    s->count = 0;
    for (size_t i = 0; i < endpoints.len; i++) {
        /* Weight 0 means: only where every endpoint has 0. */
        if (!weighted || endpoints.ptr[i].weight > 0) choices[s->count++] = (uint32_t)i;
    }
    return NULL;
}

static uint32_t load(const state *s, uint32_t index) {
    return s->by_latency ? endpoints_latency_us(index) : endpoints_inflight(index);
}

uint32_t plugin_pick(uint32_t binding, uint64_t sequence, uint64_t random, uint32_t attempt) {
    (void)sequence;
    const state *s = &states[binding];
    if (s->count == 0) return MG_NO_OPINION;
    if (attempt > 0) { /* A retry takes the next one that has not failed this request. */
        for (size_t step = 0; step < s->count; step++) {
            uint32_t index = s->choices[(random % s->count + step) % s->count];
            if (!endpoints_tried(index)) return index;
        }
        return MG_NO_OPINION;
    }
    size_t first = (uint32_t)random % s->count, second = first;
    if (s->count > 1) second = (first + 1 + (random >> 32) % (s->count - 1)) % s->count;
    uint32_t a = s->choices[first], b = s->choices[second];
    return load(s, b) < load(s, a) ? b : a;
}
