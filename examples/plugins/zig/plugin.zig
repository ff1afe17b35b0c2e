//! Answers 503 with `Retry-After` for the paths that are under maintenance, and lets the others pass.
//!
//! Options: paths, a list of prefixes of whole segments; retry_after, seconds from 0 to 86400 (60).
const std = @import("std");
const moongate = @import("moongate.zig");

comptime {
    moongate.exportFilter(@This());
}

/// What the operator writes; what is kept of it is copied.
const Options = struct { paths: []const []const u8, retry_after: u32 = 60 };

const State = struct { arena: std.heap.ArenaAllocator, paths: []const []const u8, headers: [2]moongate.Header };

/// One state for each binding: one configured use of the plugin.
var bindings: std.array_hash_map.Auto(u32, State) = .empty;

/// Null, or an error that is shown to the operator.
pub fn configure(binding: u32, config: []const u8) ?[]const u8 {
    const any = std.json.parseFromSliceLeaky(std.json.Value, moongate.scratch(), config, .{}) catch return "the options are no JSON";
    if (any != .object) return "the options must be a table";
    for (any.object.keys()) |key| {
        if (!std.mem.eql(u8, key, "paths") and !std.mem.eql(u8, key, "retry_after"))
            return moongate.mistake("unknown field `{s}`, expected `paths` or `retry_after`", .{key});
    }
    if (!any.object.contains("paths")) return "`paths` is missing: which are under maintenance?";
    const options = std.json.parseFromSliceLeaky(Options, moongate.scratch(), config, .{}) catch
        return "`paths` must be a list of texts, and `retry_after` a number of seconds";
    for (options.paths) |path| {
        if (path.len == 0 or path[0] != '/') return moongate.mistake("`paths` has `{s}`: a path starts with `/`", .{path});
    }
    if (options.retry_after > 86400) return "`retry_after` must be a number of seconds from 0 to 86400";
    const state = keep(options) catch return "out of memory";
    if (bindings.getPtr(binding)) |before| before.arena.deinit();
    bindings.put(moongate.gpa, binding, state) catch return "out of memory";
    return null;
}

fn keep(options: Options) !State {
    var arena: std.heap.ArenaAllocator = .init(moongate.gpa);
    errdefer arena.deinit();
    const paths = try arena.allocator().alloc([]const u8, options.paths.len);
    for (paths, options.paths) |*path, given| path.* = try arena.allocator().dupe(u8, given);
    const seconds = try std.fmt.allocPrint(arena.allocator(), "{d}", .{options.retry_after});
    return .{ .arena = arena, .paths = paths, .headers = .{
        .{ .name = .of("retry-after"), .value = .of(seconds) },
        .{ .name = .of("content-type"), .value = .of("text/plain; charset=utf-8") },
    } };
}

pub fn onRequest(binding: u32) moongate.Verdict {
    const state = bindings.getPtr(binding).?;
    const path = moongate.request.path();
    for (state.paths) |prefix| {
        if (covers(prefix, path))
            return .{ .respond = .{ .status = 503, .headers = &state.headers, .body = "under maintenance\n" } };
    }
    return .next;
}

pub fn onResponse(_: u32) moongate.Verdict {
    return .next;
}

/// `/a` and `/a/` cover `/a`, `/a/b` and `/a?b`, not `/ab`.
fn covers(prefix: []const u8, path_and_query: []const u8) bool {
    const end = std.mem.indexOfScalar(u8, path_and_query, '?') orelse path_and_query.len;
    const path = path_and_query[0..end];
    const whole = std.mem.trimEnd(u8, prefix, "/");
    return std.mem.startsWith(u8, path, whole) and (path.len == whole.len or path[whole.len] == '/');
}

test "prefixes are of whole segments" {
    for ([_][]const u8{ "/a", "/a/", "/a/b", "/a?b", "/a/?b=/" }) |path| {
        try std.testing.expect(covers("/a", path));
        try std.testing.expect(covers("/a/", path));
    }
    for ([_][]const u8{ "/", "/ab", "/b/a", "/?/a" }) |path| try std.testing.expect(!covers("/a", path));
    try std.testing.expect(covers("/", "/anything"));
}

test "what is under maintenance is answered" {
    try std.testing.expectEqual(null, configure(0, "{\"paths\":[\"/old\",\"/shop\"],\"retry_after\":5}"));
    moongate.fake.path = "/shop/cart?id=1";
    const reply = onRequest(0).respond;
    try std.testing.expectEqual(503, reply.status);
    try std.testing.expectEqualStrings("5", reply.headers[0].value.text());
    moongate.fake.path = "/other";
    try std.testing.expectEqual(.next, onRequest(0));
    try std.testing.expectEqual(null, configure(0, "{\"paths\":[\"/other\"]}"));
    try std.testing.expectEqualStrings("60", onRequest(0).respond.headers[0].value.text());
}

test "mistakes are named" {
    const cases = .{
        .{ "{}", "`paths` is missing" },
        .{ "{\"path\":[]}", "unknown field `path`" },
        .{ "{\"paths\":\"/a\"}", "`paths` must be a list" },
        .{ "{\"paths\":[\"a\"]}", "`paths` has `a`" },
        .{ "{\"paths\":[],\"retry_after\":86401}", "from 0 to 86400" },
        .{ "{\"paths\":[],\"retry_after\":-1}", "a number of seconds" },
    };
    inline for (cases) |case| {
        const message = configure(9, case[0]) orelse "accepted";
        if (std.mem.indexOf(u8, message, case[1]) == null) {
            std.debug.print("{s}: {s}\n", .{ case[0], message });
            return error.WrongMessage;
        }
    }
}
