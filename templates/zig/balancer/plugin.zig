//! Of two endpoints taken at random, the one that is less loaded (Mitzenmacher, "The Power of Two Choices in Randomized
//! Load Balancing", 2001): nearly as even as asking all of them, and without the herd that runs to the same one.
//!
//! Option: by = "inflight" (the default; requests in flight) or "latency" (mean time to the response head).
const std = @import("std");
const moongate = @import("moongate.zig");

comptime {
    moongate.exportBalancer(@This());
}

/// One configured use of the plugin: what load means, and the indices of the endpoints that may be picked.
const State = struct { by: enum { inflight, latency } = .inflight, choices: []u32 = &.{} };

var bindings: std.array_hash_map.Auto(u32, State) = .empty;

/// Null, or an error that is shown to the operator.
pub fn configure(binding: u32, config: []const u8) ?[]const u8 {
    var state: State = .{};
    const options = std.json.parseFromSliceLeaky(std.json.Value, moongate.scratch(), config, .{}) catch return "the options are no JSON";
    if (options != .object) return "the options must be a table";
    var all = options.object.iterator();
    while (all.next()) |option| {
        const key = option.key_ptr.*;
        if (!std.mem.eql(u8, key, "by")) return moongate.mistake("unknown field `{s}`, expected `by`", .{key});
        if (option.value_ptr.* != .string) return "`by` must be a text: `inflight` or `latency`";
        const by = option.value_ptr.string;
        state.by = std.meta.stringToEnum(@TypeOf(state.by), by) orelse
            return moongate.mistake("`by` is `{s}`: it must be `inflight` or `latency`", .{by});
    }
    if (bindings.get(binding)) |before| moongate.gpa.free(before.choices);
    bindings.put(moongate.gpa, binding, state) catch return "out of memory";
    return null;
}

pub fn update(binding: u32, endpoints: []const moongate.Endpoint) ?[]const u8 {
    const state = bindings.getPtr(binding).?;
    const choices = moongate.gpa.alloc(u32, endpoints.len) catch return "out of memory";
    const weighted = for (endpoints) |endpoint| {
        if (endpoint.weight > 0) break true;
    } else false;
    var count: usize = 0;
    for (endpoints, 0..) |endpoint, index| {
        if (weighted and endpoint.weight == 0) continue; // 0: only where every endpoint has 0
        choices[count] = @intCast(index);
        count += 1;
    }
    moongate.gpa.free(state.choices);
    // Given back at its own size, which `free` needs to know.
    state.choices = moongate.gpa.realloc(choices, count) catch return "out of memory";
    return null;
}

pub fn pick(binding: u32, _: u64, random: u64, attempt: u32) u32 {
    const state = bindings.get(binding).?;
    const count = state.choices.len;
    if (count == 0) return moongate.no_opinion;
    const first: usize = @intCast(random % count);
    if (attempt > 0) { // A retry takes the next one that has not failed this request.
        for (0..count) |step| {
            const index = state.choices[(first + step) % count];
            if (!moongate.endpoints.tried(index)) return index;
        }
        return moongate.no_opinion;
    }
    if (count == 1) return state.choices[0];
    // Two places out of one random number: its quotient is as random as its remainder.
    const second = (first + 1 + @as(usize, @intCast(random / count % (count - 1)))) % count;
    const a = state.choices[first];
    const b = state.choices[second];
    const less = switch (state.by) {
        .inflight => moongate.endpoints.inflight(b) < moongate.endpoints.inflight(a),
        .latency => moongate.endpoints.latencyUs(b) < moongate.endpoints.latencyUs(a),
    };
    return if (less) b else a;
}

fn updated(binding: u32, comptime weights: []const u32) !void {
    var endpoints: [weights.len]moongate.Endpoint = undefined;
    for (weights, &endpoints) |weight, *endpoint| endpoint.weight = weight;
    try std.testing.expectEqual(null, update(binding, &endpoints));
}

test "options are checked by name" {
    try std.testing.expectEqualStrings("the options must be a table", configure(9, "[]").?);
    try std.testing.expectEqualStrings("unknown field `bye`, expected `by`", configure(9, "{\"bye\":1}").?);
    try std.testing.expectEqualStrings("`by` must be a text: `inflight` or `latency`", configure(9, "{\"by\":1}").?);
    try std.testing.expectEqualStrings("`by` is `weight`: it must be `inflight` or `latency`", configure(9, "{\"by\":\"weight\"}").?);
    try std.testing.expectEqual(null, configure(9, "{}"));
}

test "the less loaded of two is picked, and each binding has its own options" {
    try std.testing.expectEqual(null, configure(0, "{}"));
    try std.testing.expectEqual(null, configure(1, "{\"by\":\"latency\"}"));
    try std.testing.expectEqual(moongate.no_opinion, pick(1, 0, 0, 0));
    try updated(0, &.{ 1, 1 });
    try updated(1, &.{ 1, 1 });
    moongate.fake = .{ .inflight = &.{ 5, 4 }, .latency_us = &.{ 10, 20 } };
    for (0..4) |random| {
        try std.testing.expectEqual(1, pick(0, 0, random, 0));
        try std.testing.expectEqual(0, pick(1, 0, random, 0));
    }
}

test "weight 0 is left out unless all are 0, and a retry goes elsewhere" {
    try std.testing.expectEqual(null, configure(0, "{}"));
    try updated(0, &.{ 0, 3, 0, 1 });
    moongate.fake = .{ .inflight = &.{ 0, 0, 0, 0 }, .tried = &.{ false, true, false, false } };
    var seen: [4]u32 = @splat(0);
    for (0..100) |random| seen[pick(0, 0, random, 0)] += 1;
    try std.testing.expectEqual([_]u32{ 0, 50, 0, 50 }, seen);
    for (0..4) |random| try std.testing.expectEqual(3, pick(0, 0, random, 1));
    moongate.fake.tried = &.{ false, true, false, true };
    try std.testing.expectEqual(moongate.no_opinion, pick(0, 0, 0, 2));
    try updated(0, &.{ 0, 0 });
    try std.testing.expect(pick(0, 0, 0, 0) < 2);
    try updated(0, &.{});
    try std.testing.expectEqual(moongate.no_opinion, pick(0, 0, 0, 0));
}
