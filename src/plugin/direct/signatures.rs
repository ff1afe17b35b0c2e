//! Whether a plugin means by the interface's names what the interface means. Called as a component, wasmtime compares this;
//! called directly, nobody would, and other types may have the same core signatures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use wit_component::DecodedWasm;
use wit_parser::{Function, InterfaceId, Resolve, Type, TypeDefKind, WorldItem};

/// The interface as it is published.
const WIT: &str = include_str!("../../../wit/moongate.wit");

/// The signature of each function of it, by interface and name.
static SIGNATURES: LazyLock<BTreeMap<(String, String), String>> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    // That it can be read is what the bindings are made of, and a test.
    if resolve.push_source("moongate.wit", WIT).is_err() {
        return BTreeMap::new();
    }
    let mut all = BTreeMap::new();
    for (_, interface) in resolve.interfaces.iter() {
        let name = interface.name.clone().unwrap_or_default();
        let signatures = interface.functions.values().map(|it| (it.name.clone(), signature(&resolve, it)));
        all.extend(signatures.map(|(function, signature)| ((name.clone(), function), signature)));
    }
    all
});

/// The first function of the package that a component has with another signature, or that the package does not have.
pub(in crate::plugin) fn differing(decoded: &DecodedWasm, package: &str) -> Option<String> {
    let DecodedWasm::Component(resolve, world) = decoded else { return Some("everything".to_owned()) };
    let world = &resolve.worlds[*world];
    let interfaces = world.imports.values().chain(world.exports.values()).filter_map(|item| match item {
        WorldItem::Interface { id, .. } => Some(*id),
        WorldItem::Function(_) | WorldItem::Type { .. } => None,
    });
    let own = interfaces.filter(|id| resolve.id_of(*id).is_some_and(|it| it.starts_with(package)));
    own.into_iter().find_map(|id| differing_in(resolve, id))
}

fn differing_in(resolve: &Resolve, id: InterfaceId) -> Option<String> {
    let interface = &resolve.interfaces[id];
    let name = interface.name.clone().unwrap_or_default();
    let differs = |function: &&Function| {
        let known = SIGNATURES.get(&(name.clone(), function.name.clone()));
        known.is_none_or(|known| *known != signature(resolve, function))
    };
    interface.functions.values().find(differs).map(|it| format!("{name}.{}", it.name))
}

/// Names and types, with nothing left that is only a name.
fn signature(resolve: &Resolve, function: &Function) -> String {
    let mut text = String::new();
    let _ = write!(text, "{:?}(", function.kind);
    for param in &function.params {
        let _ = write!(text, "{}: ", param.name);
        tell(resolve, param.ty, &mut text);
        text.push(',');
    }
    text.push_str(") -> ");
    tell_some(resolve, function.result, &mut text);
    text
}

fn tell_some(resolve: &Resolve, it: Option<Type>, text: &mut String) {
    match it {
        Some(it) => tell(resolve, it, text),
        None => text.push('_'),
    }
}

fn tell(resolve: &Resolve, it: Type, text: &mut String) {
    let Type::Id(id) = it else {
        let _ = write!(text, "{it:?}");
        return;
    };
    let mut all = |kind: &str, parts: &[(&str, Option<Type>)]| {
        text.push_str(kind);
        text.push('{');
        for (name, part) in parts {
            text.push_str(name);
            text.push(':');
            tell_some(resolve, *part, text);
            text.push(',');
        }
        text.push('}');
    };
    match &resolve.types[id].kind {
        TypeDefKind::Type(alias) => tell(resolve, *alias, text),
        TypeDefKind::Record(it) => {
            all("record", &it.fields.iter().map(|it| (&*it.name, Some(it.ty))).collect::<Vec<_>>());
        }
        TypeDefKind::Variant(it) => all("variant", &it.cases.iter().map(|it| (&*it.name, it.ty)).collect::<Vec<_>>()),
        TypeDefKind::Enum(it) => all("enum", &it.cases.iter().map(|it| (&*it.name, None)).collect::<Vec<_>>()),
        TypeDefKind::Tuple(it) => all("tuple", &it.types.iter().map(|it| ("", Some(*it))).collect::<Vec<_>>()),
        TypeDefKind::Option(it) => all("option", &[("", Some(*it))]),
        TypeDefKind::List(it) => all("list", &[("", Some(*it))]),
        TypeDefKind::Result(it) => all("result", &[("", it.ok), ("", it.err)]),
        // The package has none of the others, so that whatever has one differs.
        other => text.push_str(other.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signatures of the WIT after `change`, and what differs from the published.
    fn changed(from: &str, to: &str) -> Vec<String> {
        let text = WIT.replace(from, to);
        assert!(from.is_empty() || text != WIT, "{from} is not in the WIT");
        let mut resolve = Resolve::default();
        resolve.push_source("changed.wit", &text).unwrap();
        resolve.interfaces.iter().filter_map(|(id, _)| differing_in(&resolve, id)).collect()
    }

    #[test]
    fn the_published_interface_is_itself() {
        assert!(SIGNATURES.len() > 40, "{}", SIGNATURES.len());
        assert_eq!(changed("", ""), [""; 0]);
    }

    #[test]
    fn what_has_the_same_core_signature_differs_all_the_same() {
        for (from, to, differs) in [
            ("attempt: u32) -> u32", "attempt: s32) -> u32", "balancer.pick"),
            ("inflight: func(index: u32) -> u32", "inflight: func(index: u32) -> s32", "endpoints.inflight"),
            ("note: func(value: list<u8>) -> bool", "note: func(value: string) -> bool", "request.note"),
            ("enum level { trace, debug,", "enum level { debug, trace,", "host.log"),
            ("read: func(name: string)", "fetch: func(name: string)", "store.fetch"),
        ] {
            assert_eq!(changed(from, to), [differs], "{to}");
        }
        assert_eq!(changed("weight: u32,", "weight: s32,"), ["balancer.update"], "types of other interfaces count");
    }
}
