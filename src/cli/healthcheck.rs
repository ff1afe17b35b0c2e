//! `moongate healthcheck`: for container engines.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::config::Config;

/// How long each step may take. An engine calls this every few seconds and counts a hang as a failure as well.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the gateway's admin API answers; with `ready`, whether it says that it takes requests.
pub fn run(admin: Option<SocketAddr>, ready: bool) -> ExitCode {
    match ask(admin.unwrap_or(Config::default().admin), if ready { "/readyz" } else { "/healthz" }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn ask(mut admin: SocketAddr, path: &str) -> Result<()> {
    if admin.ip().is_unspecified() {
        // What is served on all addresses is served on this one.
        admin.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let context = || format!("asking http://{admin}{path}");
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE).with_context(context)?;
    stream.set_read_timeout(Some(PATIENCE)).with_context(context)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").with_context(context)?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).with_context(context)?;
    ensure!(answer == *b"HTTP/1.1 200", "http://{admin}{path} answers {:?}", String::from_utf8_lossy(&answer));
    Ok(())
}
