//! What `bindgen!` makes of `wit/`, and nothing else; these types stay inside `plugin`.
#![allow(missing_docs, unreachable_pub)]

wasmtime::component::bindgen!({
    path: "wit",
    inline: "
        package moongate:gateway;

        /// Everything a plugin may import or export: what one really exports is found by name.
        world everything {
            import moongate:plugin/host@0.1.0;
            import moongate:plugin/shared@0.1.0;
            import moongate:plugin/store@0.1.0;
            import moongate:plugin/endpoints@0.1.0;
            import moongate:plugin/request-keys@0.1.0;
            import moongate:plugin/request@0.1.0;
            import moongate:plugin/response@0.1.0;
            import moongate:plugin/bodies@0.1.0;
            export moongate:plugin/configurable@0.1.0;
            export moongate:plugin/balancer@0.1.0;
            export moongate:plugin/request-filter@0.1.0;
            export moongate:plugin/response-filter@0.1.0;
            export moongate:plugin/request-body-filter@0.1.0;
            export moongate:plugin/response-body-filter@0.1.0;
        }
    ",
    world: "moongate:gateway/everything",
    // These two end in a trap where a guest calls them out of turn or without end.
    imports: {
        "moongate:plugin/shared.open": trappable,
        "moongate:plugin/request-keys.declare": trappable,
    },
});
