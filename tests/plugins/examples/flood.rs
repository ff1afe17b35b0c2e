//! Picks the first, and says so at great length.

use moongate_plugin::{Level, log};

fixtures::pick!(|_, _| {
    let line = "a line of the flood ".repeat(200);
    (0..20).for_each(|_| log(Level::Error, &line));
    Some(0)
});
