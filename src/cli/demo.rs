//! `moongate demo` and the sample services.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::DemoOptions;
use crate::config::{Config, Listen};
use crate::demo;
use crate::logging;

/// Runs gateway and sample services until a signal comes.
pub fn run(options: DemoOptions) -> ExitCode {
    let mut config = Config::default();
    config.log.level = options.log.unwrap_or(config.log.level);
    logging::start(&config.log);
    config.listen = options.listen.unwrap_or(Listen(vec![SocketAddr::from(([127, 0, 0, 1], 8080))]));
    config.admin = options.admin.unwrap_or(config.admin);
    config.plugins.dir = options.plugins.unwrap_or(config.plugins.dir);
    super::block_on(demo::run(config, |addresses, services| {
        let (base, admin) = (addresses.listen[0].0, addresses.admin);
        println!(
            "Moongate is at http://{base}, its dashboard at http://{admin}.\n\
             The registry is {}: edit a line, and the routes follow.\n\
             Drop a balancer into the plugin directory as round-robin.wasm, and traffic follows it.\n\n\
             Try:\n\
             \x20 curl http://{base}/service_1/\n\
             \x20 curl 'http://{base}/service_1/user?id=1'\n\
             \x20 curl -i http://{base}/service_2/     # again and again: x-endpoint alternates\n\
             \x20 curl -H 'service_name: service_1' -H 'api_name: /user?id=1' http://{base}/services\n\
             \x20 curl 'http://{admin}/api/v1/explain?path=/service_1/user'     # where that would go, and why",
            services.display()
        );
        eprintln!("ready: {addresses}");
    }))
}

/// Runs one sample service.
pub fn sample(name: &str, address: SocketAddr) -> ExitCode {
    super::block_on(async {
        let listener = std::net::TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        eprintln!("ready: {}", listener.local_addr().context("reading the bound address")?);
        // As PID 1 in a container nobody else ends us.
        let serve = demo::sample(name, listener);
        tokio::select! {
            outcome = serve => outcome,
            outcome = terminated() => outcome,
        }
    })
}

async fn terminated() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
