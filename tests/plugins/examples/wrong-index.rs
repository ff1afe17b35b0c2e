//! Picks an endpoint that does not exist.

fixtures::pick!(|_, count| Some(count + 7));
