//! Compiled plugins on disk, so that what was compiled once is ready in a moment after a restart.
//!
//! Compiled code runs outside of the sandbox, so a file is believed only if nobody else can have written it: it and its
//! directory belong to this user, and nobody else may write to them. What is damaged is found out by a digest, and what
//! another version of the engine wrote has another name.

use std::fs::{self, Metadata};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

/// Files that are kept; those that were not used for the longest time go first.
const FILES: usize = 256;

/// A file that somebody may still be writing is left alone for so long.
const FRESH: Duration = Duration::from_secs(60);

/// Bytes before the compiled code.
const DIGEST: usize = 32;

/// What can be compiled and kept: whole components, and core modules that are called directly.
pub(super) trait Compiled: Sized {
    /// What it is; also a part of file names, so that the one is never taken for the other.
    const KIND: &'static str;

    fn compile(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self>;

    fn serialize(&self) -> wasmtime::Result<Vec<u8>>;

    /// # Safety
    /// It must be what `serialize` gave: it is code that will run outside of the sandbox.
    #[allow(unsafe_code)]
    unsafe fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Self>;
}

impl Compiled for Component {
    const KIND: &'static str = "component";

    fn compile(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self> {
        Component::new(engine, bytes)
    }

    fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        Component::serialize(self)
    }

    #[allow(unsafe_code)]
    unsafe fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Self> {
        // SAFETY: the caller's.
        unsafe { Component::deserialize(engine, code) }
    }
}

impl Compiled for Module {
    const KIND: &'static str = "module";

    fn compile(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self> {
        Module::new(engine, bytes)
    }

    fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        Module::serialize(self)
    }

    #[allow(unsafe_code)]
    unsafe fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Self> {
        // SAFETY: the caller's.
        unsafe { Module::deserialize(engine, code) }
    }
}

/// A directory of compiled plugins.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    /// Names the engine and its settings.
    engine: String,
    /// Who this process writes files as.
    owner: u32,
}

impl Cache {
    /// In this directory, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made, or is not this user's alone to write to.
    pub fn open(dir: &Path, engine: &Engine) -> Result<Cache> {
        let opened = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            let probe = new_file(dir);
            let owner = create(&probe)?.metadata().map(|it| it.uid());
            fs::remove_file(&probe)?;
            let cache = Cache { dir: dir.to_owned(), engine: hash_of(engine), owner: owner? };
            cache.ours(&fs::metadata(dir)?).map(|()| cache)
        };
        opened().with_context(|| format!("using {} for compiled plugins", dir.display()))
    }

    fn file<C: Compiled>(&self, bytes: &[u8]) -> PathBuf {
        let digest = Sha256::digest(bytes);
        let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(format!("{name}-{}-{}.cwasm", C::KIND, self.engine))
    }

    /// What was compiled of these bytes before; none if there is nothing, or nothing that can be believed.
    pub(super) fn get<C: Compiled>(&self, engine: &Engine, bytes: &[u8]) -> Option<C> {
        let path = self.file::<C>(bytes);
        match self.load(engine, &path) {
            Ok(compiled) => {
                // The time of use, by which they are kept.
                let _ = fs::File::options().append(true).open(&path).and_then(|it| it.set_modified(SystemTime::now()));
                compiled
            }
            Err(error) => {
                tracing::warn!(file = %path.display(), "compiled plugin not used: {error:#}");
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Keeps what was compiled. That it cannot be kept is no reason not to use it.
    pub(super) fn put<C: Compiled>(&self, bytes: &[u8], compiled: &C) {
        if let Err(error) = self.write(bytes, compiled) {
            tracing::warn!(dir = %self.dir.display(), "compiled plugin not kept: {error:#}");
        }
    }

    fn write<C: Compiled>(&self, bytes: &[u8], compiled: &C) -> Result<()> {
        let code = compiled.serialize().map_err(anyhow::Error::from)?;
        let new = new_file(&self.dir);
        let written = (|| {
            let mut file = create(&new)?;
            file.write_all(&Sha256::digest(&code))?;
            file.write_all(&code)?;
            fs::rename(&new, self.file::<C>(bytes))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written?;
        self.tidy();
        Ok(())
    }

    /// Removes what is too much, and what was left half written.
    fn tidy(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let used = |path: &Path| fs::metadata(path).and_then(|it| it.modified()).ok();
        let mut files: Vec<_> =
            entries.flatten().map(|it| it.path()).filter_map(|path| Some((used(&path)?, path))).collect();
        files.sort();
        let half = |path: &Path| path.file_name().is_some_and(|it| it.to_string_lossy().starts_with(".new-"));
        let stale = |at: &SystemTime| at.elapsed().is_ok_and(|age| age > FRESH);
        let (halves, whole): (Vec<_>, Vec<_>) = files.into_iter().partition(|(_, path)| half(path));
        let many = whole.iter().take(whole.len().saturating_sub(FILES));
        for (_, path) in halves.iter().filter(|(at, _)| stale(at)).chain(many) {
            let _ = fs::remove_file(path);
        }
    }

    /// What lies there; none if nothing does.
    #[allow(unsafe_code)]
    fn load<C: Compiled>(&self, engine: &Engine, path: &Path) -> Result<Option<C>> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        ensure!(metadata.is_file(), "it is not a regular file");
        self.ours(&metadata)?;
        let bytes = fs::read(path)?;
        let (digest, code) = bytes.split_at_checked(DIGEST).context("it is cut short")?;
        ensure!(Sha256::digest(code).as_slice() == digest, "it is damaged");
        // SAFETY: it is what `serialize` gave, byte for byte, as only this user can have written it, into a directory that
        // only this user may write to; wasmtime itself compares version and settings of the engine.
        let compiled = unsafe { C::deserialize(engine, code) };
        compiled.map(Some).map_err(anyhow::Error::from)
    }

    /// Nobody else can have written it.
    fn ours(&self, metadata: &Metadata) -> Result<()> {
        let (owner, mode) = (metadata.uid(), metadata.permissions().mode());
        ensure!(owner == self.owner, "it belongs to user {owner} and not to {}", self.owner);
        ensure!(mode & 0o022 == 0, "others may write to it (its mode is {:o})", mode & 0o7777);
        Ok(())
    }
}

/// A name in the directory that nobody has used.
fn new_file(dir: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    dir.join(format!(".new-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed)))
}

/// A file for this user alone.
fn create(path: &Path) -> std::io::Result<fs::File> {
    fs::File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// A name for the engine, its version and its settings.
fn hash_of(engine: &Engine) -> String {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plugin::engine::{self, Limits};

    /// The smallest component there is.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn wasm() -> Engine {
        engine::Engine::new(Limits { memory: 1 << 20, call: Duration::from_millis(10) }).unwrap().wasm
    }

    fn cache(engine: &Engine) -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache"), engine).unwrap();
        (dir, cache)
    }

    #[test]
    fn what_was_put_in_is_found_again() {
        let engine = wasm();
        let (_dir, cache) = cache(&engine);
        assert!(cache.get::<Component>(&engine, EMPTY).is_none());
        cache.put(EMPTY, &Component::new(&engine, EMPTY).unwrap());
        assert!(cache.get::<Component>(&engine, EMPTY).is_some());
        assert!(cache.get::<Component>(&engine, b"another").is_none());
        // Of the same bytes, were that possible, the one is not the other.
        assert!(cache.get::<Module>(&engine, EMPTY).is_none());
        let empty = b"\0asm\x01\0\0\0";
        cache.put(empty, &Module::new(&engine, empty).unwrap());
        assert!(cache.get::<Module>(&engine, empty).is_some() && cache.get::<Component>(&engine, empty).is_none());
    }

    #[test]
    fn what_others_can_have_written_or_is_damaged_is_not_used() {
        let engine = wasm();
        let (_dir, cache) = cache(&engine);
        let file = cache.file::<Component>(EMPTY);
        let spoil = |how: &dyn Fn()| {
            cache.put(EMPTY, &Component::new(&engine, EMPTY).unwrap());
            how();
            let found = cache.get::<Component>(&engine, EMPTY).is_some();
            assert_eq!(file.exists(), found, "what cannot be used is removed");
            found
        };
        let permit = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        assert!(spoil(&|| permit(0o644)));
        assert!(!spoil(&|| permit(0o660)));
        assert!(!spoil(&|| {
            let mut bytes = fs::read(&file).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(&file, bytes).unwrap();
        }));
        assert!(!spoil(&|| fs::write(&file, b"short").unwrap()));
        assert!(!spoil(&|| {
            fs::rename(&file, cache.dir.join("elsewhere")).unwrap();
            std::os::unix::fs::symlink(cache.dir.join("elsewhere"), &file).unwrap();
        }));
        fs::set_permissions(&cache.dir, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = Cache::open(&cache.dir, &engine).unwrap_err();
        assert!(format!("{refused:#}").contains("others may write to it (its mode is 777)"), "{refused:#}");
    }

    #[test]
    fn the_longest_unused_go_first() {
        let engine = wasm();
        let (_dir, cache) = cache(&engine);
        let age = |path: &Path, seconds| {
            let at = SystemTime::now() - Duration::from_secs(seconds);
            fs::File::options().append(true).open(path).unwrap().set_modified(at).unwrap();
        };
        for number in 0..FILES as u64 + 5 {
            let path = cache.dir.join(format!("{number}.cwasm"));
            fs::write(&path, b"").unwrap();
            age(&path, 1000 - number);
        }
        for (name, seconds) in [(".new-old", 3600), (".new-young", 1)] {
            fs::write(cache.dir.join(name), b"").unwrap();
            age(&cache.dir.join(name), seconds);
        }
        cache.put(EMPTY, &Component::new(&engine, EMPTY).unwrap());
        let there = |name: &str| cache.dir.join(name).exists();
        assert!(!there("0.cwasm") && !there("5.cwasm") && there("6.cwasm"));
        assert!(!there(".new-old") && there(".new-young") && cache.file::<Component>(EMPTY).exists());
    }
}
