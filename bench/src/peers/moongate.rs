//! Moongate's configuration: bundled plugins, and everything on that a gateway in use has on.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::Result;

use super::{Layout, Missing, skip, succeed};

/// The variable with what is to be added to the configuration, so that `bench count` tells what that costs.
const MORE: &str = "MOONGATE_BENCH_CONFIG";

/// Writes it, and tells the arguments.
pub(super) fn write(layout: &Layout<'_>, notes: &mut Vec<String>) -> Result<Vec<String>, Missing> {
    let shape = layout.shape;
    let addresses: Vec<String> = layout.origins.iter().map(|it| format!("{{ address = \"{it}\" }}")).collect();
    let (mut services, addresses) = (String::new(), addresses.join(", "));
    for nth in 0..shape.services.max(1) {
        let _ = writeln!(services, "[services.s{nth}]\nendpoints = [{addresses}]");
    }
    layout.write("services.toml", &services)?;
    for dir in ["plugins", "logs"] {
        std::fs::create_dir_all(layout.dir.join(dir)).map_err(anyhow::Error::from)?;
    }
    let certificates = layout.certificates;
    let filter =
        |nth| format!("{{ plugin = \"set-header\", config = {{ name = \"x-filter-{nth}\", value = \"on\" }} }}");
    let filters: Vec<String> = (0..shape.filters).map(filter).collect();
    let mut text = format!(
        "listen = \"{plain}\"
admin = \"{admin}\"
workers = {workers}
[[listeners]]
address = \"{tls}\"
tls.certificates = [{{ certificate = {certificate:?}, key = {key:?} }}]
[registry.file]
path = \"services.toml\"
[defaults]
strip_prefix = false
balancer = \"{balancer}\"
filters = [{filters}]
",
        plain = layout.plain,
        admin = layout.admin,
        workers = shape.workers,
        tls = layout.tls,
        certificate = certificates.certificate,
        key = certificates.key,
        balancer = shape.balancer,
        filters = filters.join(", "),
    );
    for nth in 0..shape.routes.max(shape.services) {
        let service = if shape.services > 0 { nth } else { 0 };
        let _ = writeln!(text, "[[routes]]\npath_prefix = \"/bench/r{nth}\"\nservice = \"s{service}\"");
    }
    if shape.routes.max(shape.services) == 0 {
        text.push_str("[[routes]]\npath_prefix = \"/bench\"\nservice = \"s0\"\n");
    }
    if let Ok(more) = std::env::var(MORE) {
        notes.push(format!("Moongate has {} besides", more.replace('\n', "; ")));
        text.push_str(&more);
        text.push('\n');
    }
    if let (Some(sample), Some(collector)) = (shape.traced, layout.origins.first()) {
        let _ = writeln!(text, "[tracing]\nendpoint = \"http://{collector}\"\nsample = \"{sample}\"");
    }
    // A build that does not know it yet is measured without, and the notes say so.
    let log = |format| format!("[access_log]\npath = \"logs/access.log\"\nformat = \"{format}\"\n");
    let logged = format!("{text}{}", shape.log.map(log).unwrap_or_default());
    // The binary is asked what it can do, because this crate does not know which one it measures.
    let accepted = |name: &str, text: &str| -> Result<Result<String>> {
        let file = layout.write(name, text)?;
        Ok(succeed(Command::new(layout.program).args(["check", "--config", &file])).map(|_| file))
    };
    let file = match accepted("logged.toml", &logged)? {
        Ok(file) => file,
        Err(_) => match accepted("moongate.toml", &text)? {
            Ok(file) => {
                notes.push("this build of Moongate has no access log to turn on".into());
                file
            }
            Err(_) if shape.balancer == "native" => {
                return skip("this build of Moongate has no balancer that is called native");
            }
            Err(error) => return Err(error.into()),
        },
    };
    Ok(vec!["run".into(), "--config".into(), file])
}
