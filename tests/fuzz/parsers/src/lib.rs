//! What of the gateway reads bytes, from the gateway's own files; see the manifest beside this.

#[path = "../../../../src/config/mod.rs"]
pub mod config;
#[path = "../../../../src/message/mod.rs"]
pub mod message;
#[path = "../../../../src/registry/mod.rs"]
pub mod registry;
#[path = "../../../../src/routes.rs"]
pub mod routes;
#[path = "../../../../src/scan.rs"]
pub mod scan;
#[path = "../../../../src/watch.rs"]
pub mod watch;

/// HTTP/1.1 but for what needs a connection.
#[path = "../../../../src/http1"]
pub mod http1 {
    pub mod chunked;
    pub mod encode;
    pub mod head;

    /// Buffers of connections, of which there are none.
    pub mod connection {
        /// A new one.
        pub fn spare() -> Vec<u8> {
            Vec::new()
        }

        /// Drops it.
        pub fn put_by(_buffer: Vec<u8>) {}
    }
}

/// HTTP/2 from clients but for what needs a connection.
#[path = "../../../../src/http2"]
pub mod http2 {
    pub mod answer;
    pub mod frame;
    pub mod guard;
    pub mod hpack;
    pub mod outbox;
    pub mod receive;
    pub mod request;
    pub mod response;
    pub mod session;
}

/// What a registry may be reached through.
pub mod tls {
    use std::convert::Infallible;
    use std::io;
    use std::net::IpAddr;
    use std::sync::Arc;

    use tokio::net::TcpStream;

    use crate::config::Protocol;
    use crate::config::tls::EndpointTls;

    /// Connects.
    pub struct Connector;

    impl Connector {
        /// Any.
        pub fn load(_name: &str, _tls: &EndpointTls) -> Result<(Arc<Connector>, Vec<String>), Infallible> {
            Ok((Arc::new(Connector), Vec::new()))
        }

        /// In the open.
        pub async fn connect(&self, stream: TcpStream, _address: IpAddr, _protocol: Protocol) -> io::Result<TcpStream> {
            Ok(stream)
        }
    }
}

/// What routes carry and never look into: a plugin in use.
pub mod plugin {
    pub use crate::config::Kind;
    use std::sync::Arc;

    /// Versions that are tried.
    pub mod canary {
        /// A canary.
        #[derive(Debug)]
        pub struct Canary;

        /// A shadow.
        #[derive(Debug)]
        pub struct Shadow;
    }

    /// A use of a plugin.
    #[derive(Debug)]
    pub struct Binding;

    impl Binding {
        /// Any use.
        pub fn new(_slot: usize, _plugin: Arc<str>, _kind: Kind, _config: Arc<str>, _number: Number) -> Binding {
            Binding
        }
    }

    /// Gives out numbers.
    #[derive(Debug, Default)]
    pub struct Numbers;

    impl Numbers {
        /// Any number.
        pub fn take(&self) -> Number {
            Number
        }
    }

    /// The number of a use.
    #[derive(Debug)]
    pub struct Number;
}
