/* Tests of plugin.c on this machine: here the test is the gateway. */
#undef NDEBUG
#include "moongate.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char on_request[256], on_response[256];

bool request_set(const char *name, size_t name_len, const char *value, size_t value_len) {
    snprintf(on_request, sizeof on_request, "%.*s: %.*s", (int)name_len, name, (int)value_len, value);
    return true;
}

bool response_set(const char *name, size_t name_len, const char *value, size_t value_len) {
    snprintf(on_response, sizeof on_response, "%.*s: %.*s", (int)name_len, name, (int)value_len, value);
    return true;
}

static const char *configure(uint32_t binding, const char *json) {
    return plugin_configure(binding, (mg_string){(char *)json, strlen(json)});
}

static void refused(const char *json, const char *words) {
    const char *error = configure(9, json);
    if (!error || !strstr(error, words)) {
        fprintf(stderr, "%s: %s\n", json, error ? error : "accepted");
        abort();
    }
}

int main(void) {
    refused("{}", "`name` must be");
    refused("{\"name\":\"x y\",\"value\":\"a\"}", "`name` must be");
    refused("{\"name\":\"Content-Length\",\"value\":\"1\"}", "the gateway itself answers for");
    refused("{\"name\":\"x\"}", "`value` is missing");
    refused("{\"name\":\"x\",\"value\":1}", "`value` must be a text");
    refused("{\"name\":\"x\",\"value\":\"a\\r\\nb: c\"}", "control character");
    refused("{\"nme\":\"x\"}", "unknown field `nme`");

    assert(configure(0, "{\"name\":\"x-env\",\"value\":\"say \\\"hi\\\"\\u0009\"}") == NULL);
    assert(configure(2, "{\"value\":\"\",\"name\":\"x-empty\"}") == NULL);
    assert(!plugin_on_request(0).respond && strcmp(on_request, "x-env: say \"hi\"\t") == 0);
    assert(!plugin_on_response(2).respond && strcmp(on_response, "x-empty: ") == 0 && "each binding has its own");
    assert(configure(0, "{\"name\":\"x-env\",\"value\":\"b\"}") == NULL);
    plugin_on_response(0);
    assert(strcmp(on_response, "x-env: b") == 0 && "a binding may be configured again");
    puts("1 passed, 0 failed");
}
