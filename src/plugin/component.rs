//! From the bytes of a file to a component, and what can be said of it without compiling it.

use std::borrow::Cow;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, DecodedWasm};

use super::Kinds;
use super::direct::shape::{self, Shape};
use super::direct::signatures;
use crate::config::Capability;

/// The package that plugins are written against.
const PACKAGE: &str = "moongate:plugin";

/// The minor version of it that this gateway speaks; patch versions only add.
const SPOKEN: (u64, u64) = (0, 1);

/// Interfaces of the package that a plugin may import.
const OFFERED: [&str; 10] =
    ["types", "filter-types", "host", "shared", "endpoints", "request-keys", "request", "response", "store", "bodies"];

/// A file that is a plugin, by its interfaces.
#[derive(Debug)]
pub struct Described {
    /// What it can do.
    pub kinds: Kinds,
    /// Its own version, if the file carries one (the custom section `version`).
    pub version: Option<String>,
    /// The version of the WIT package it was built for.
    pub wit: String,
    /// The interfaces it imports, by full name.
    pub imports: Vec<String>,
    /// The interfaces it exports, by full name.
    pub exports: Vec<String>,
    /// Of what it imports, what the configuration must allow.
    pub capabilities: Vec<Capability>,
    /// A JSON schema of its configuration, if the file carries one (the custom section `config-schema`).
    pub schema: Option<String>,
    /// Of the file's bytes, in hex.
    pub sha256: String,
    /// Bytes of the file.
    pub size: usize,
}

/// What is compiled of a file: it as a component, or the core module inside of it.
pub(super) struct Parts<'a> {
    pub(super) component: &'a [u8],
    /// Why that cannot be called directly, if so.
    pub(super) shape: Result<Shape<'a>, String>,
}

/// The file as a component, and what it is.
///
/// # Errors
/// Why it cannot be a plugin, in words for its author.
pub fn read(bytes: &[u8]) -> Result<(Cow<'_, [u8]>, Described)> {
    ensure!(!bytes.is_empty(), "the file is empty");
    ensure!(bytes.starts_with(b"\0asm"), "the file is not WebAssembly: it does not start with the bytes 00 61 73 6d");
    let component = componentize(bytes)?;
    let described = describe(bytes, &component)?;
    Ok((component, described))
}

/// What is compiled of a component.
pub(super) fn parts(component: &[u8]) -> Parts<'_> {
    Parts { component, shape: directly(component) }
}

/// What of a component can be called directly, or why not.
fn directly(component: &[u8]) -> Result<Shape<'_>, String> {
    let shape = shape::of(component)?;
    let decoded = wit_component::decode(component).map_err(|error| format!("it cannot be read: {error:#}"))?;
    if let Some(function) = signatures::differing(&decoded, PACKAGE) {
        return Err(format!("it has {function} in another signature"));
    }
    // That core functions have the signatures that follow from those of the component is what makes it valid.
    wasmparser::validate(component).map_err(|error| format!("it is not valid: {error}"))?;
    Ok(shape)
}

/// A component as it is; of a core module, the component that its embedded type makes of it.
fn componentize(bytes: &[u8]) -> Result<Cow<'_, [u8]>> {
    if Parser::is_component(bytes) {
        return Ok(bytes.into());
    }
    ensure!(Parser::is_core_wasm(bytes), "the file is WebAssembly of an unknown version, or cut short");
    let typed = sections(bytes).any(|(name, _)| name.starts_with("component-type"));
    ensure!(
        typed,
        "the file is a core module without a component type: build it with the moongate:plugin WIT (wit-bindgen \
         embeds the type), or run `wasm-tools component embed`"
    );
    let mut encoder = ComponentEncoder::default().validate(true).module(bytes).context("reading the core module")?;
    encoder.encode().map(Cow::Owned).context("making a component of the core module")
}

/// The custom sections of the file, those of nested modules and components included.
fn sections(bytes: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    // A truncated file ends the walk; whoever compiles it will say so.
    Parser::new(0).parse_all(bytes).map_while(Result::ok).filter_map(|payload| match payload {
        Payload::CustomSection(section) => Some((section.name(), section.data())),
        _ => None,
    })
}

fn describe(bytes: &[u8], component: &[u8]) -> Result<Described> {
    let decoded = wit_component::decode(component).context("reading the component's interfaces")?;
    let DecodedWasm::Component(resolve, world) = decoded else {
        bail!("the file is a WIT package, not a component with code in it");
    };
    let name = |key: &_| resolve.name_world_key(key);
    let imports: Vec<String> = resolve.worlds[world].imports.keys().map(name).collect();
    let exports: Vec<String> = resolve.worlds[world].exports.keys().map(name).collect();

    let ours = |name: &str| Some(own(name.strip_prefix(PACKAGE)?.strip_prefix('/')?.split_once('@')?));
    let wit = exports.iter().chain(&imports).find_map(|name| Some(ours(name)?.1)).unwrap_or_default();
    if !wit.is_empty() {
        let numbers: Vec<u64> = wit.split('.').map_while(|part| part.parse().ok()).collect();
        ensure!(
            numbers.len() >= 2 && (numbers[0], numbers[1]) == SPOKEN,
            "the plugin was built for {PACKAGE}@{wit}; this gateway speaks {PACKAGE}@{}.{}",
            SPOKEN.0,
            SPOKEN.1
        );
    }

    let foreign: Vec<&String> =
        imports.iter().filter(|name| !ours(name).is_some_and(|(it, _)| OFFERED.contains(&it.as_str()))).collect();
    if !foreign.is_empty() {
        let mut list = String::new();
        foreign.iter().for_each(|name| write!(list, "\n  {name}").unwrap_or(()));
        let wasi = foreign.iter().any(|name| name.starts_with("wasi:"));
        let hint =
            if wasi { "\nbuild it without WASI (for Rust: --target wasm32-unknown-unknown), or stub WASI" } else { "" };
        bail!("the plugin imports what no plugin may have:{list}{hint}");
    }

    let exported = |wanted: &str| exports.iter().any(|name| ours(name).is_some_and(|(it, _)| it == wanted));
    let kinds = Kinds {
        balancer: exported("balancer"),
        request_filter: exported("request-filter"),
        response_filter: exported("response-filter"),
        request_body_filter: exported("request-body-filter"),
        response_body_filter: exported("response-body-filter"),
    };
    ensure!(
        kinds != Kinds::default(),
        "the component exports none of {PACKAGE}/balancer, {PACKAGE}/request-filter, {PACKAGE}/response-filter; it exports {}",
        if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") }
    );
    ensure!(exported("configurable"), "the component does not export {PACKAGE}/configurable, which every plugin must");

    let section = |wanted: &str| {
        let (_, text) = sections(bytes).find(|(name, _)| *name == wanted)?;
        String::from_utf8(text.to_vec()).ok()
    };
    let (version, schema) = (section("version"), section("config-schema"));
    let imported = |it: &Capability| imports.iter().any(|name| ours(name).is_some_and(|(own, _)| own == it.name()));
    let capabilities = Capability::ALL.into_iter().filter(imported).collect();
    let sha256 = Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap_or(());
        hex
    });
    Ok(Described { kinds, version, wit, imports, exports, capabilities, schema, sha256, size: bytes.len() })
}

fn own((interface, version): (&str, &str)) -> (String, String) {
    (interface.to_owned(), version.to_owned())
}
