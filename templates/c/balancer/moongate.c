/* What stands between the gateway and plugin.c: the exports under their names in the WIT, and the options. */
#include "moongate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __wasm__

#define EXPORT(interface, name) __attribute__((export_name("moongate:plugin/" interface "@0.1.0#" name)))

/* Where the gateway puts what it passes. */
__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *ptr, size_t old_size, size_t align, size_t new_size) {
    (void)old_size;
    if (new_size == 0) return (void *)align;
    void *moved = realloc(ptr, new_size);
    if (!moved) __builtin_trap();
    return moved;
}

/* result<_, string> */
typedef struct { bool err; mg_string error; } result;

static result *answer(const char *error) {
    static result area;
    area = (result){error != NULL, {(char *)error, error ? strlen(error) : 0}};
    return &area;
}

/* An empty string or list was never allocated. */
static void release(void *ptr, size_t len) {
    if (len) free(ptr);
}

EXPORT("configurable", "configure") result *export_configure(uint32_t binding, char *config, size_t len) {
    const char *error = plugin_configure(binding, (mg_string){config, len});
    release(config, len);
    return answer(error);
}

#ifdef MG_BALANCER
EXPORT("balancer", "update") result *export_update(uint32_t binding, mg_endpoint *endpoints, size_t len) {
    const char *error = plugin_update(binding, (mg_endpoints){endpoints, len});
    for (size_t i = 0; i < len; i++) {
        release(endpoints[i].address.ptr, endpoints[i].address.len);
        release(endpoints[i].zone.ptr, endpoints[i].zone.len);
        mg_headers labels = endpoints[i].labels;
        for (size_t j = 0; j < labels.len; j++) {
            release(labels.ptr[j].name.ptr, labels.ptr[j].name.len);
            release(labels.ptr[j].value.ptr, labels.ptr[j].value.len);
        }
        release(labels.ptr, labels.len);
    }
    release(endpoints, len);
    return answer(error);
}

EXPORT("balancer", "pick")
uint32_t export_pick(uint32_t binding, uint64_t sequence, uint64_t random, uint32_t attempt) {
    return plugin_pick(binding, sequence, random, attempt);
}
#endif

#ifdef MG_FILTER
/* variant verdict { next, respond(reply) } */
typedef struct { uint8_t tag; struct { uint16_t status; mg_headers headers; mg_string body; } reply; } verdict;

static verdict *decided(mg_verdict it) {
    static verdict area;
    area = (verdict){it.respond, {it.status, it.headers, it.body}};
    return &area;
}

EXPORT("request-filter", "on-request") verdict *export_on_request(uint32_t binding) {
    return decided(plugin_on_request(binding));
}

EXPORT("response-filter", "on-response") verdict *export_on_response(uint32_t binding) {
    return decided(plugin_on_response(binding));
}
#endif

#endif /* __wasm__ */

static char next(mg_options *o) {
    if (o->rest.len == 0) return 0;
    o->rest.len--;
    return *o->rest.ptr++;
}

/* The next character that is no white space. */
static char token(mg_options *o) {
    char c;
    do c = next(o);
    while (c && strchr(" \t\r\n", c));
    return c;
}

/* The rest of a string whose first quotation mark is read. False: too long, or no JSON. Of `\u` only ASCII: the gateway
 * escapes nothing but quotation marks, backslashes and control characters. */
static bool text(mg_options *o, char *out, size_t room) {
    for (size_t len = 0; len < room; len++) {
        char c = next(o);
        if (c == '"') {
            out[len] = 0;
            return true;
        }
        if (c == 0) return false;
        if (c == '\\') {
            static const char escapes[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
            c = next(o);
            if (c == 'u') {
                char digits[5] = {next(o), next(o), next(o), next(o), 0}, *end;
                long code = strtol(digits, &end, 16);
                if (*end || code <= 0 || code > 127) return false;
                c = (char)code;
            } else {
                size_t at = 0;
                while (escapes[at] && escapes[at] != c) at += 2;
                if (!escapes[at]) return false;
                c = escapes[at + 1];
            }
        }
        out[len] = c;
    }
    return false;
}

int mg_next_option(mg_options *o) {
    char c = token(o);
    if (!o->started) {
        o->started = true;
        if (c != '{') {
            strcpy(o->value, "the options must be a table");
            return -1;
        }
        c = token(o);
    } else if (c == ',') {
        c = token(o);
    }
    if (c == '}') return 0;
    if (c != '"' || !text(o, o->key, sizeof o->key)) {
        strcpy(o->value, "an option has a name that is too long");
        return -1;
    }
    token(o); /* the colon */
    if (token(o) != '"' || !text(o, o->value, sizeof o->value)) {
        snprintf(o->value, sizeof o->value, "`%s` must be a text of at most 1023 bytes", o->key);
        return -1;
    }
    return 1;
}
