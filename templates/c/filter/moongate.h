/* The plugin interface of Moongate (wit/moongate.wit) in C, written by hand: what a balancer or a header filter
 * exports and what it may call. What each function means stands in the WIT; a name there such as `inflight-all` of
 * `endpoints` is `endpoints_inflight_all` here.
 *
 * Types are laid out as the canonical ABI of the component model says (CanonicalABI.md, "Alignment", "Flattening"):
 * a string is pointer and length, an option a byte and what follows it, and what does not fit one number is returned
 * through a last pointer. Strings that a function returns belong to the caller: `free` them. */
#ifndef MOONGATE_H
#define MOONGATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* UTF-8 without a NUL at its end; `ptr` means nothing where `len` is 0. */
typedef struct { char *ptr; size_t len; } mg_string;
typedef struct { uint32_t *ptr; size_t len; } mg_u32s;
typedef struct { mg_string name, value; } mg_header;
typedef struct { mg_header *ptr; size_t len; } mg_headers;
typedef struct { mg_string address; uint32_t weight; mg_string zone; mg_headers labels; } mg_endpoint;
typedef struct { mg_endpoint *ptr; size_t len; } mg_endpoints;
typedef struct { bool some; mg_string value; } mg_option;

/* What a filter decides. All zeros: on to the next filter. */
typedef struct {
    bool respond; /* the gateway answers what follows, and the endpoint (or its response) is left out */
    uint16_t status; /* 200 to 599 */
    mg_headers headers;
    mg_string body; /* at most 1 MiB */
} mg_verdict;

/* "No opinion": the gateway picks, round robin. */
#define MG_NO_OPINION UINT32_MAX

/* Exported by the plugin. `config` and `endpoints` are freed after the call: copy what is to stay. The error that
 * `configure` and `update` return is shown to the operator and is never freed; NULL: all is well. */
const char *plugin_configure(uint32_t binding, mg_string config);
#ifdef MG_BALANCER
const char *plugin_update(uint32_t binding, mg_endpoints endpoints);
uint32_t plugin_pick(uint32_t binding, uint64_t sequence, uint64_t random, uint32_t attempt);
#endif
/* What the verdict points to must stay until the next call. */
#ifdef MG_FILTER
mg_verdict plugin_on_request(uint32_t binding);
mg_verdict plugin_on_response(uint32_t binding);
#endif

/* What the plugin may call. On a machine of its own, without a gateway, a test defines what it needs of these. */
#ifdef __wasm__
#define MG_IMPORT(interface, name) \
    __attribute__((import_module("moongate:plugin/" interface "@0.1.0"), import_name(name))) extern
#else
#define MG_IMPORT(interface, name) extern
#endif

enum mg_level { MG_TRACE, MG_DEBUG, MG_INFO, MG_WARN, MG_ERROR };
MG_IMPORT("host", "log") void host_log(uint32_t level, const char *message, size_t len);
MG_IMPORT("host", "now") uint64_t host_now(void);
MG_IMPORT("host", "unix-ms") uint64_t host_unix_ms(void);
MG_IMPORT("host", "random") uint64_t host_random(void);

MG_IMPORT("shared", "open") uint32_t shared_open(const char *name, size_t len);
MG_IMPORT("shared", "get") uint64_t shared_get(uint32_t slot);
MG_IMPORT("shared", "set") void shared_set(uint32_t slot, uint64_t value);
MG_IMPORT("shared", "fetch-add") uint64_t shared_fetch_add(uint32_t slot, uint64_t delta);
MG_IMPORT("shared", "compare-exchange")
uint64_t shared_compare_exchange(uint32_t slot, uint64_t expected, uint64_t replacement);

MG_IMPORT("endpoints", "count") uint32_t endpoints_count(void);
MG_IMPORT("endpoints", "inflight") uint32_t endpoints_inflight(uint32_t index);
MG_IMPORT("endpoints", "latency-us") uint32_t endpoints_latency_us(uint32_t index);
MG_IMPORT("endpoints", "failures") uint32_t endpoints_failures(uint32_t index);
MG_IMPORT("endpoints", "tried") bool endpoints_tried(uint32_t index);
MG_IMPORT("endpoints", "inflight-all") void endpoints_inflight_all(mg_u32s *result);

/* `name` is for the last three. */
enum mg_source { MG_PATH, MG_METHOD, MG_AUTHORITY, MG_CLIENT_ADDRESS, MG_HEADER, MG_COOKIE, MG_QUERY };
MG_IMPORT("request-keys", "declare") uint32_t request_keys_declare(uint32_t source, const char *name, size_t len);
MG_IMPORT("request-keys", "hash") uint64_t request_keys_hash(uint32_t key);
MG_IMPORT("request-keys", "text") void request_keys_text(uint32_t key, mg_option *result);

MG_IMPORT("request", "method") void request_method(mg_string *result);
MG_IMPORT("request", "path") void request_path(mg_string *result);
MG_IMPORT("request", "client-address") void request_client_address(mg_string *result);
MG_IMPORT("request", "get") void request_get(const char *name, size_t len, mg_option *result);
MG_IMPORT("request", "set") bool request_set(const char *name, size_t name_len, const char *value, size_t value_len);
MG_IMPORT("request", "append")
bool request_append(const char *name, size_t name_len, const char *value, size_t value_len);
MG_IMPORT("request", "remove") bool request_remove(const char *name, size_t len);
MG_IMPORT("request", "set-path") bool request_set_path(const char *path, size_t len);

MG_IMPORT("response", "status") uint32_t response_status(void);
MG_IMPORT("response", "set-status") bool response_set_status(uint32_t status);
MG_IMPORT("response", "get") void response_get(const char *name, size_t len, mg_option *result);
MG_IMPORT("response", "set") bool response_set(const char *name, size_t name_len, const char *value, size_t value_len);
MG_IMPORT("response", "append")
bool response_append(const char *name, size_t name_len, const char *value, size_t value_len);
MG_IMPORT("response", "remove") bool response_remove(const char *name, size_t len);

/* The options, one after the other: an object whose values are all strings. */
typedef struct {
    mg_string rest;
    bool started;
    char key[64], value[1024]; /* with a NUL at their ends */
} mg_options;

/* Reads the next option into `key` and `value`: 1; 0 if there are no more; -1, with `value` an error for the operator. */
int mg_next_option(mg_options *options);

#endif
