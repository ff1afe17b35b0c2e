//! Sets a header on each request and each response of its route.
//!
//! Options: name and value of the header; both are needed.
const std = @import("std");
const moongate = @import("moongate.zig");

comptime {
    moongate.exportFilter(@This());
}

const State = struct { name: []const u8, value: []const u8 };

/// One state for each binding: one configured use of the plugin.
var bindings: std.array_hash_map.Auto(u32, State) = .empty;

/// Null, or an error that is shown to the operator.
pub fn configure(binding: u32, config: []const u8) ?[]const u8 {
    var name: []const u8 = "";
    var value: ?[]const u8 = null;
    const options = std.json.parseFromSliceLeaky(std.json.Value, moongate.scratch(), config, .{}) catch return "the options are no JSON";
    if (options != .object) return "the options must be a table";
    var all = options.object.iterator();
    while (all.next()) |option| {
        const key = option.key_ptr.*;
        const is_name = std.mem.eql(u8, key, "name");
        if (!is_name and !std.mem.eql(u8, key, "value"))
            return moongate.mistake("unknown field `{s}`, expected `name` or `value`", .{key});
        if (option.value_ptr.* != .string) return moongate.mistake("`{s}` must be a text", .{key});
        if (is_name) name = option.value_ptr.string else value = option.value_ptr.string;
    }
    if (!isToken(name)) return "`name` must be a header's name, such as `x-env`";
    if (isReserved(name)) return "`name` is a header that the gateway itself answers for";
    if (!isValue(value orelse return "`value` is missing: what is the header to be?"))
        return "`value` has a line break or another control character in it";
    const state = State{
        .name = moongate.gpa.dupe(u8, name) catch return "out of memory",
        .value = moongate.gpa.dupe(u8, value.?) catch return "out of memory",
    };
    if (bindings.get(binding)) |before| { // what the number meant before is over
        moongate.gpa.free(before.name);
        moongate.gpa.free(before.value);
    }
    bindings.put(moongate.gpa, binding, state) catch return "out of memory";
    return null;
}

pub fn onRequest(binding: u32) moongate.Verdict {
    const state = bindings.get(binding).?;
    _ = moongate.request.set(state.name, state.value);
    return .next;
}

pub fn onResponse(binding: u32) moongate.Verdict {
    const state = bindings.get(binding).?;
    _ = moongate.response.set(state.name, state.value);
    return .next;
}

/// RFC 9110, 5.6.2: what a header's name is made of.
fn isToken(name: []const u8) bool {
    for (name) |byte| {
        if (!std.ascii.isAlphanumeric(byte) and std.mem.indexOfScalar(u8, "!#$%&'*+-.^_`|~", byte) == null) return false;
    }
    return name.len > 0;
}

/// What the gateway answers for itself, and so does not let a plugin write.
fn isReserved(name: []const u8) bool {
    const reserved = [_][]const u8{ "connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade" };
    for (reserved) |other| {
        if (std.ascii.eqlIgnoreCase(name, other)) return true;
    }
    return false;
}

/// RFC 9110, 5.5: no line breaks and no other control characters but tabs.
fn isValue(value: []const u8) bool {
    for (value) |byte| {
        if (std.ascii.isControl(byte) and byte != '\t') return false;
    }
    return true;
}

test "a header that HTTP allows is set, and each binding has its own" {
    try std.testing.expectEqual(null, configure(0, "{\"name\":\"x-env\",\"value\":\"say \\\"hi\\\"\\t\"}"));
    try std.testing.expectEqual(null, configure(2, "{\"value\":\"\",\"name\":\"x-empty\"}"));
    try std.testing.expectEqual(.next, onRequest(0));
    try std.testing.expectEqual(.next, onResponse(2));
    try std.testing.expectEqualStrings("x-env", moongate.fake.on_request[0]);
    try std.testing.expectEqualStrings("say \"hi\"\t", moongate.fake.on_request[1]);
    try std.testing.expectEqualStrings("x-empty", moongate.fake.on_response[0]);
    try std.testing.expectEqual(null, configure(0, "{\"name\":\"x-env\",\"value\":\"b\"}"));
    _ = onResponse(0);
    try std.testing.expectEqualStrings("b", moongate.fake.on_response[1]);
}

test "mistakes are named" {
    const cases = .{
        .{ "{}", "`name` must be" },
        .{ "{\"name\":\"x y\",\"value\":\"a\"}", "`name` must be" },
        .{ "{\"name\":\"Content-Length\",\"value\":\"1\"}", "the gateway itself answers for" },
        .{ "{\"name\":\"x\"}", "`value` is missing" },
        .{ "{\"name\":\"x\",\"value\":1}", "`value` must be a text" },
        .{ "{\"name\":\"x\",\"value\":\"a\\r\\nb: c\"}", "control character" },
        .{ "{\"nme\":\"x\"}", "unknown field `nme`" },
    };
    inline for (cases) |case| {
        const message = configure(9, case[0]) orelse "accepted";
        if (std.mem.indexOf(u8, message, case[1]) == null) {
            std.debug.print("{s}: {s}\n", .{ case[0], message });
            return error.WrongMessage;
        }
    }
}
