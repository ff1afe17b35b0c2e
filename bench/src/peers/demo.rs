//! The original demo: express and http-proxy, routes in memory, round robin, a new call of the proxy for each request.

use anyhow::Result;

use super::{Layout, target};

const SERVER: &str = include_str!("demo.js");

/// Writes it, and tells the arguments.
pub(super) fn write(layout: &Layout<'_>) -> Result<Vec<String>> {
    // Its libraries are found from where the file is.
    let modules = layout.dir.join("node_modules");
    if !modules.exists() {
        std::os::unix::fs::symlink(target().canonicalize()?.join("bench/demo/node_modules"), modules)?;
    }
    let file = layout.write("server.js", SERVER)?;
    let mut all = vec![file, layout.plain.port().to_string()];
    all.extend(layout.origins.iter().map(ToString::to_string));
    Ok(all)
}
