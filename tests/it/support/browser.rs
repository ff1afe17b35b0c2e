//! A real browser: Chromium without a window, driven over WebDriver (a W3C recommendation), which is JSON over HTTP.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::Client;
use super::eventually;

/// The Enter key, as WebDriver writes it.
pub(crate) const ENTER: &str = "\u{e007}";
/// The Tab key.
pub(crate) const TAB: &str = "\u{e004}";

/// It ends when this is dropped.
pub(crate) struct Browser {
    driver: Driver,
    session: String,
    _profile: TempDir,
}

/// The process that drives it.
struct Driver {
    process: Child,
    address: SocketAddr,
    session: Option<String>,
}

impl Driver {
    fn start() -> Driver {
        let mut command = Command::new("chromedriver");
        let process = command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut process = process.expect("starting chromedriver, which tests/setup installs");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines
            .find_map(|line| line.unwrap().rsplit_once("successfully on port ")?.1.trim_end_matches('.').parse().ok());
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("chromedriver says its port")));
        std::thread::spawn(move || lines.for_each(drop));
        Driver { process, address, session: None }
    }

    /// A command of WebDriver, and what it answers.
    async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        let body = if method == Method::GET { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(path).header("host", self.address.to_string());
        let request = request.header("content-type", "application/json").body(Full::from(Bytes::from(body))).unwrap();
        let reply = Client::to(self.address).await.send(request).await.unwrap();
        let mut answer: Value = serde_json::from_slice(&reply.body).unwrap();
        assert!(reply.status.is_success(), "{path}: {answer}");
        answer["value"].take()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Asked to, it ends the browser as well; killed, it would leave it behind.
        if let (Some(session), Ok(mut stream)) = (&self.session, TcpStream::connect(self.address)) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let asked = write!(stream, "DELETE /session/{session} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
            let _ = asked.and_then(|()| stream.read(&mut [0; 1]));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Browser {
    /// With a window of this size.
    pub(crate) async fn start(width: u32, height: u32) -> Browser {
        let profile = TempDir::new().unwrap();
        let mut driver = Driver::start();
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--force-color-profile=srgb",
            &format!("--window-size={width},{height}"),
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let options = json!({ "args": arguments });
        let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let wanted = json!({ "capabilities": { "alwaysMatch": wanted } });
        let session = driver.ask(Method::POST, "/session", wanted).await["sessionId"].as_str().unwrap().to_owned();
        driver.session = Some(session.clone());
        let browser = Browser { driver, session, _profile: profile };
        browser.size(width, height).await;
        browser
    }

    async fn post(&self, command: &str, body: Value) -> Value {
        self.driver.ask(Method::POST, &format!("/session/{}/{command}", self.session), body).await
    }

    pub(crate) async fn open(&self, url: &str) {
        self.post("url", json!({ "url": url })).await;
    }

    /// What the body of a function returns.
    pub(crate) async fn script(&self, body: &str) -> Value {
        self.post("execute/sync", json!({ "script": body, "args": [] })).await
    }

    /// Waits until an expression is true.
    pub(crate) async fn sees(&self, what: &str, expression: &str) {
        let script = format!("return Boolean({expression})");
        eventually(what, async || self.script(&script).await == true).await;
    }

    /// Presses keys, whatever has the focus.
    pub(crate) async fn keys(&self, text: &str) {
        let element =
            self.driver.ask(Method::GET, &format!("/session/{}/element/active", self.session), Value::Null).await;
        let element = element.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
        self.post(&format!("element/{element}/value"), json!({ "text": text })).await;
    }

    /// The size of what is shown, also smaller than a window may be.
    pub(crate) async fn size(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics });
        self.post("goog/cdp/execute", command).await;
    }

    /// As if the system were dark, or light.
    pub(crate) async fn dark(&self, dark: bool) {
        let feature = json!({ "name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" } });
        let params = json!({ "features": [feature] });
        self.post("goog/cdp/execute", json!({ "cmd": "Emulation.setEmulatedMedia", "params": params })).await;
    }

    /// What the browser complained of since the last time.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.post("se/log", json!({ "type": "browser" })).await;
        let grave = log.as_array().unwrap().iter().filter(|it| it["level"] == "SEVERE" || it["level"] == "WARNING");
        grave.map(|it| it["message"].to_string()).collect()
    }

    /// Writes a picture of what is shown into the directory that `SCREENSHOTS` names, if it does.
    pub(crate) async fn picture(&self, name: &str) {
        let Some(directory) = std::env::var_os("SCREENSHOTS") else { return };
        let path = format!("/session/{}/screenshot", self.session);
        let picture = self.driver.ask(Method::GET, &path, Value::Null).await;
        fs::write(Path::new(&directory).join(name), base64(picture.as_str().unwrap())).unwrap();
    }
}

/// What was encoded so (RFC 4648, section 4).
fn base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len());
    let (mut bits, mut count) = (0u32, 0);
    for digit in text.bytes().filter_map(|it| alphabet.iter().position(|known| *known == it)) {
        bits = bits << 6 | digit as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
