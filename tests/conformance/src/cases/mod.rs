//! All cases, by group.

mod accept;
mod answers;
mod bodies;
mod chunks;
mod downgrade;
mod exchange;
mod fields;
mod floods;
mod framing;
mod h2basic;
mod h2endpoints;
mod h2errors;
mod limits;
mod paths;
mod raw;
mod resilience;
mod syntax;
mod tls;
mod upgrade;

use crate::case::{Case, Group};

/// Adds its cases to a group.
type Fill = fn(&mut Group);

/// The groups in the order of the table.
pub(crate) const GROUPS: &[(&str, Fill)] = &[
    ("message framing", framing::fill),
    ("chunked coding", chunks::fill),
    ("request syntax", syntax::fill),
    ("paths", paths::fill),
    ("fields and hosts", fields::fill),
    ("odd endpoints", answers::fill),
    ("exchange", exchange::fill),
    ("bodies", bodies::fill),
    ("upgrade", upgrade::fill),
    ("HTTP/2", h2basic::fill),
    ("HTTP/2 faults", h2errors::fill),
    ("HTTP/2 downgrade", downgrade::fill),
    ("HTTP/2 endpoints", h2endpoints::fill),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn each_case_has_a_name_of_its_own_and_says_where_it_comes_from() {
        let all = super::all();
        assert!(all.len() > 400, "{} cases", all.len());
        let mut names = BTreeSet::new();
        for case in &all {
            assert!(names.insert((case.group, case.id.clone())), "{}/{} twice", case.group, case.id);
            assert!(!case.reference.is_empty(), "{}/{} has no reference", case.group, case.id);
        }
    }
}
