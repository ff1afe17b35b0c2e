//! Replacing the running gateway by another process without closing a listening socket.
//!
//! The running gateway listens on a unix socket. The next one connects to it, gets a copy of every listening socket
//! (`SCM_RIGHTS`), starts, accepts from them too, and says that it is ready; only then does the first stop accepting, and
//! drain as on SIGTERM. The queues of the sockets stay open all the time, so no connection is refused or lost. If the
//! next one ends before it is ready, nothing has happened.
//!
//! On the wire: from the old gateway four bytes with the length of a [`Manifest`] in JSON, the manifest, and for each
//! socket in it one byte that carries the socket; from the new one [`READY`]; from the old one [`STOPPING`].

use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;

use super::sockets::{Group, Sockets};

/// What the new gateway says when it accepts connections.
const READY: u8 = b'r';
/// What the old one answers: from now on it does not.
const STOPPING: u8 = b's';
/// What carries a socket.
const SOCKET: u8 = b'f';

/// Changes when the meaning of anything above does. Gateways of different versions refuse each other.
const VERSION: u32 = 1;

/// The longest manifest: a thousand listeners need a tenth of it.
const LONGEST: usize = 1 << 20;

/// How long either side may take for a step that needs no thinking.
const STEP: Duration = Duration::from_secs(10);

/// How long a new gateway may take to start: it compiles plugins and reads registries.
const START: Duration = Duration::from_secs(120);

/// How often, and at which distance, a gateway is asked that does not answer: one that has just handed over has closed
/// its socket, and the next one's is there in an instant.
const TRIES: u32 = 10;
const AGAIN: Duration = Duration::from_millis(50);

/// What is handed over, in this order.
#[derive(Debug, Deserialize, Serialize)]
struct Manifest {
    version: u32,
    groups: Vec<Entry>,
    admin: Option<Entry>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Entry {
    configured: SocketAddr,
    sockets: usize,
}

/// A gateway that is about to be replaced by this one.
pub struct Predecessor(UnixStream);

/// Asks the gateway that listens at `path` for its sockets. None: there is no such gateway.
///
/// # Errors
/// If there is one, but it does not hand over, or the path is something else.
pub async fn ask(path: &Path) -> Result<Option<(Predecessor, Sockets)>> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        let asked = ask_now(&path);
        asked.with_context(|| format!("asking the running gateway at {} for its sockets", path.display()))
    })
    .await
    .context("asking the running gateway")?
}

fn ask_now(path: &Path) -> Result<Option<(Predecessor, Sockets)>> {
    let mut last = None;
    for _ in 0..TRIES {
        match fs::symlink_metadata(path) {
            Ok(found) => ensure!(found.file_type().is_socket(), "there is something that is not a socket"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        match UnixStream::connect(path).and_then(|mut stream| Ok((receive(&mut stream)?, Predecessor(stream)))) {
            Ok((sockets, predecessor)) => return Ok(Some((predecessor, sockets))),
            // It has handed over to another, or ended.
            Err(error) if is_gone(&error) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(AGAIN);
    }
    match last {
        // What is left of one that was killed.
        Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Some(error) => Err(error.into()),
        None => Ok(None),
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotFound | UnexpectedEof)
}

fn receive(stream: &mut UnixStream) -> io::Result<Sockets> {
    let nonsense = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(nonsense(format!("a manifest of {length} bytes")));
    }
    let mut manifest = vec![0; length];
    stream.read_exact(&mut manifest)?;
    let manifest: Manifest = serde_json::from_slice(&manifest).map_err(|error| nonsense(error.to_string()))?;
    if manifest.version != VERSION {
        let theirs = manifest.version;
        return Err(nonsense(format!("it hands over as of version {theirs}, and this one takes {VERSION}")));
    }
    let mut group = |entry: Entry| -> io::Result<Group> {
        let sockets = (0..entry.sockets).map(|_| receive_socket(stream)).collect::<io::Result<Vec<_>>>()?;
        Ok(Group { configured: entry.configured, sockets })
    };
    let groups = manifest.groups.into_iter().map(&mut group).collect::<io::Result<_>>()?;
    Ok(Sockets { groups, admin: manifest.admin.map(group).transpose()? })
}

fn receive_socket(stream: &UnixStream) -> io::Result<TcpListener> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    // So that no program that is started meanwhile inherits it.
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut sockets = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(all) => Some(all),
        _ => None,
    });
    let socket: Option<OwnedFd> = sockets.by_ref().flatten().next();
    let socket = socket.filter(|_| byte == [SOCKET]).ok_or(io::ErrorKind::InvalidData)?;
    let socket = TcpListener::from(socket);
    // Anything else that has no address would be found out at the first accept.
    socket.local_addr()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Predecessor {
    /// Says that this gateway accepts connections. When this returns, the other one does not any more.
    ///
    /// # Errors
    /// If the other one does not answer: it may go on as if nothing had happened.
    pub async fn replace(self) -> Result<()> {
        let Predecessor(mut stream) = self;
        let replaced = tokio::task::spawn_blocking(move || {
            stream.write_all(&[READY])?;
            let mut answer = [0];
            stream.read_exact(&mut answer)?;
            if answer == [STOPPING] { Ok(()) } else { Err(io::Error::from(io::ErrorKind::InvalidData)) }
        });
        let replaced = replaced.await.context("telling the running gateway to stop")?;
        replaced.context("telling the running gateway to stop")
    }
}

/// The unix socket at which the next gateway asks for this one's sockets.
pub struct Offer {
    listener: UnixListener,
    /// Where it is to be found.
    path: PathBuf,
    /// Where it is until then.
    temporary: Option<PathBuf>,
    /// Whose processes may ask, beside the super-user's: ours.
    owner: u32,
    /// What the file system knows it by.
    inode: u64,
}

impl Offer {
    /// Opens the socket under another name, so that nobody finds it before [`Offer::publish`].
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn prepare(path: &Path) -> Result<Offer> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let opened = || -> io::Result<Offer> {
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&temporary)?;
            // Whoever may connect could take over the gateway's traffic.
            fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))?;
            let file = fs::symlink_metadata(&temporary)?;
            let (owner, inode) = (file.uid(), file.ino());
            Ok(Offer { listener, path: path.to_owned(), temporary: Some(temporary.clone()), owner, inode })
        };
        opened().with_context(|| format!("opening the socket {}", path.display()))
    }

    /// Makes it the socket that the next gateway finds.
    ///
    /// # Errors
    /// If it cannot be put there.
    pub fn publish(&mut self) -> Result<()> {
        if let Some(temporary) = &self.temporary {
            let renamed = fs::rename(temporary, &self.path);
            renamed.with_context(|| format!("putting a socket at {}", self.path.display()))?;
            self.temporary = None;
        }
        Ok(())
    }

    /// Takes it away, because this gateway ends without a next one.
    pub fn withdraw(self) {
        // Unless a next one has put its own there meanwhile.
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|it| it.ino() == self.inode);
        if ours && self.temporary.is_none() {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Hands `sockets` to whoever asks. Completes when a next gateway has begun to accept from them: then this one is
    /// to stop, and knows nothing of the socket's path any more.
    pub async fn serve(&self, sockets: &Sockets) {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accepting at the hand-over socket, retrying");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            match self.hand_over(stream, sockets).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(error = format!("{error:#}"), "a hand-over came to nothing; going on"),
            }
        }
    }

    async fn hand_over(&self, stream: tokio::net::UnixStream, sockets: &Sockets) -> Result<()> {
        let peer = stream.peer_cred().context("asking who it is")?.uid();
        if peer != self.owner && peer != 0 {
            bail!("the user {peer} asked for it");
        }
        let copies = sockets.again().context("copying the sockets")?;
        tracing::info!("another gateway starts in place of this one");
        let stream = stream.into_std().context("preparing the connection")?;
        let handed = tokio::task::spawn_blocking(move || send(stream, copies));
        handed.await.context("handing over")?.context("handing over")
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

fn send(mut stream: UnixStream, sockets: Sockets) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(STEP))?;
    stream.set_read_timeout(Some(START))?;
    let entry = |group: &Group| Entry { configured: group.configured, sockets: group.sockets.len() };
    let groups = sockets.groups.iter().map(entry).collect();
    let manifest = Manifest { version: VERSION, groups, admin: sockets.admin.as_ref().map(entry) };
    let manifest = serde_json::to_vec(&manifest)?;
    stream.write_all(&(manifest.len() as u32).to_be_bytes())?;
    stream.write_all(&manifest)?;
    for socket in sockets.groups.iter().chain(&sockets.admin).flat_map(|group| &group.sockets) {
        send_socket(&stream, socket)?;
    }
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    if answer != [READY] {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Whatever becomes of this: the other one accepts, so this one may stop.
    let _ = stream.write_all(&[STOPPING]);
    Ok(())
}

fn send_socket(stream: &UnixStream, socket: &TcpListener) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let byte = [SOCKET];
    // A client that is gone is an error here, not a signal.
    let sent = rustix::net::sendmsg(stream, &[IoSlice::new(&byte)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == byte.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
