//! Always the first endpoint.

fixtures::pick!(|_, _| Some(0));
