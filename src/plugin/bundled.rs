//! The plugins that the gateway carries in itself; `build.rs` compiles them. A file of the same name in the plugin
//! directory takes the place of one.

/// Name and core module, which carries its component type.
pub const BUNDLED: &[(&str, &[u8])] = &[
    ("round-robin", include_bytes!(concat!(env!("OUT_DIR"), "/round-robin.wasm"))),
    ("random", include_bytes!(concat!(env!("OUT_DIR"), "/random.wasm"))),
    ("weighted", include_bytes!(concat!(env!("OUT_DIR"), "/weighted.wasm"))),
    ("set-header", include_bytes!(concat!(env!("OUT_DIR"), "/set-header.wasm"))),
];
