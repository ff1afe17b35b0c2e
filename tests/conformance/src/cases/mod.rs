//! All cases, by group.

mod accept;
mod answers;
mod chunks;
mod exchange;
mod fields;
mod floods;
mod framing;
mod h2basic;
mod h2errors;
mod limits;
mod paths;
mod raw;
mod resilience;
mod syntax;
mod tls;
mod upgrade;

use crate::case::{Case, Group};

/// The groups in the order of the table.
pub(crate) const GROUPS: &[(&str, fn(&mut Group))] = &[
    ("message framing", framing::fill),
    ("chunked coding", chunks::fill),
    ("request syntax", syntax::fill),
    ("paths", paths::fill),
    ("fields and hosts", fields::fill),
    ("odd endpoints", answers::fill),
    ("exchange", exchange::fill),
    ("upgrade", upgrade::fill),
    ("HTTP/2", h2basic::fill),
    ("HTTP/2 faults", h2errors::fill),
    ("TLS", tls::fill),
    ("resilience", resilience::fill),
    ("limits", limits::fill),
    ("HTTP/2 floods", floods::fill),
];

/// Every case; their names are unique within a group.
pub(crate) fn all() -> Vec<Case> {
    let mut all = Vec::new();
    for (name, fill) in GROUPS {
        let mut group = Group::new(name);
        fill(&mut group);
        all.extend(group.cases);
    }
    all
}
