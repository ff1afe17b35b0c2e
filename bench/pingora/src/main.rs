//! Pingora doing what the other peers of the benchmark do: round robin over the origin's ports, connections kept alive on
//! both sides, and the client's address in `x-forwarded-for`.
//!
//! `pingora-peer THREADS PLAIN HTTP2 TLS CERTIFICATE KEY ORIGIN...`

use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::HttpServerOptions;
use pingora::http::RequestHeader;
use pingora::lb::LoadBalancer;
use pingora::lb::selection::RoundRobin;
use pingora::listeners::tls::TlsSettings;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

#[derive(Clone)]
struct Proxy(Arc<LoadBalancer<RoundRobin>>);

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let origin = self.0.select(b"", 256).ok_or_else(|| Error::new(ErrorType::ConnectNoRoute))?;
        Ok(Box::new(HttpPeer::new(origin, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut (),
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|it| it.as_inet()) {
            request.insert_header("x-forwarded-for", client.ip().to_string())?;
        }
        Ok(())
    }
}

fn main() {
    let all: Vec<String> = std::env::args().skip(1).collect();
    let [threads, plain, http2, tls, certificate, key, origins @ ..] = &all[..] else {
        panic!("usage: pingora-peer THREADS PLAIN HTTP2 TLS CERTIFICATE KEY ORIGIN...");
    };
    let conf = ServerConf {
        threads: threads.parse().expect("a number of threads"),
        upstream_keepalive_pool_size: 512,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let origins = LoadBalancer::try_from_iter(origins).expect("addresses of the origin");
    let proxy = Proxy(Arc::new(origins));
    let mut both = http_proxy_service(&server.configuration, proxy.clone());
    both.add_tcp(plain);
    let mut settings = TlsSettings::intermediate(certificate, key).expect("a certificate and its key");
    settings.enable_h2();
    both.add_tls_with_settings(tls, None, settings);
    server.add_service(both);
    // On a port of its own: looking for HTTP/2's first bytes costs every connection of a listener that may be spoken to
    // in both, and its memory.
    let mut second = http_proxy_service(&server.configuration, proxy);
    if let Some(proxy) = second.app_logic_mut() {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        proxy.server_options = Some(options);
    }
    second.add_tcp(http2);
    server.add_service(second);
    server.run_forever();
}
