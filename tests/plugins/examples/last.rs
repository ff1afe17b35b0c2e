//! Always the last endpoint; no opinion where there is none.

fixtures::pick!(|_, count| count.checked_sub(1));
