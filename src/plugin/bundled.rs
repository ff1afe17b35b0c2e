//! The plugins that the gateway carries in itself; `build.rs` compiles them. A file of the same name in the plugin
//! directory takes the place of one.

/// Name and core module, which carries its component type.
pub const BUNDLED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/bundled.rs"));
