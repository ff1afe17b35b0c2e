//! Traps in every pick.

fixtures::pick!(|_, _| panic!("as it always does"));
