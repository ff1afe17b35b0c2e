/* Sets a header on each request and each response of its route.
 *
 * Options: name and value of the header; both are needed. */
#include "moongate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct { char *name, *value; } state;

/* Bindings are small numbers, so the list is one that is indexed by them. */
static state *states;
static size_t bindings;

/* RFC 9110, 5.6.2: what a header's name is made of. */
static bool is_token(const char *name) {
    return *name && name[strspn(name, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")] == 0;
}

/* What the gateway answers for itself, and so does not let a plugin write. */
static bool is_reserved(const char *name) {
    static const char *const reserved[] = {"connection", "content-length", "keep-alive", "te", "trailer",
                                           "transfer-encoding", "upgrade"};
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        if (strcasecmp(name, reserved[i]) == 0) return true;
    return false;
}

/* RFC 9110, 5.5: no line breaks and no other control characters but tabs. */
static bool is_value(const char *value) {
    for (; *value; value++)
        if ((unsigned char)*value < ' ' ? *value != '\t' : *value == 127) return false;
    return true;
}

const char *plugin_configure(uint32_t binding, mg_string config) {
    static char error[1200];
    char name[64] = "", value[1024] = "";
    bool has_value = false;
    mg_options options = {.rest = config};
    int read;
    while ((read = mg_next_option(&options)) == 1) {
        if (strcmp(options.key, "name") == 0) {
            if (strlen(options.value) >= sizeof name) return "`name` is longer than 63 bytes";
            strcpy(name, options.value);
        } else if (strcmp(options.key, "value") == 0) {
            strcpy(value, options.value);
            has_value = true;
        } else {
            snprintf(error, sizeof error, "unknown field `%s`, expected `name` or `value`", options.key);
            return error;
        }
    }
    if (read < 0) {
        snprintf(error, sizeof error, "%s", options.value);
        return error;
    }
    if (!is_token(name)) return "`name` must be a header's name, such as `x-env`";
    if (is_reserved(name)) return "`name` is a header that the gateway itself answers for";
    if (!has_value) return "`value` is missing: what is the header to be?";
    if (!is_value(value)) return "`value` has a line break or another control character in it";
    if (binding >= bindings) {
        state *more = realloc(states, (binding + 1) * sizeof *states);
        if (!more) return "out of memory";
        memset(more + bindings, 0, (binding + 1 - bindings) * sizeof *states);
        states = more;
        bindings = binding + 1;
    }
    state configured = {strdup(name), strdup(value)};
    if (!configured.name || !configured.value) return "out of memory";
    free(states[binding].name); /* what the number meant before is over */
    free(states[binding].value);
    states[binding] = configured;
    return NULL;
}

mg_verdict plugin_on_request(uint32_t binding) {
    const state *s = &states[binding];
    request_set(s->name, strlen(s->name), s->value, strlen(s->value));
    return (mg_verdict){0};
}

mg_verdict plugin_on_response(uint32_t binding) {
    const state *s = &states[binding];
    response_set(s->name, strlen(s->name), s->value, strlen(s->value));
    return (mg_verdict){0};
}
