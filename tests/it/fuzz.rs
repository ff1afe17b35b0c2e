//! The fuzz targets without a fuzzer: what they were found to be worth, and that changed a little, on every change.
//!
//! The targets and what they promise are in `tests/fuzz`; `tests/fuzz/run` drives them by coverage.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a library of its own elsewhere")]
mod targets;

use targets::Target;

/// Longer inputs only cost time; libFuzzer is given the same limit.
const LONGEST: usize = 512;

/// Changed inputs for each target. The first ends it, so that a slow machine is not held up.
const ROUNDS: usize = 20_000;
const TIME: Duration = Duration::from_secs(2);

/// Where the changes start; `MOONGATE_FUZZ_SEED` is another place.
const SEED: u64 = 20;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(name)
}

/// The names in a folder, without what follows a dot.
fn names(folder: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    names.map(|it| it.split('.').next().unwrap_or_default().to_owned()).collect()
}

/// The inputs of a target, in an order that is the same everywhere.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder("corpus").join(name)).unwrap().map(|it| it.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 5, "the corpus of {name} is no corpus: {files:?}");
    files.iter().map(|it| fs::read(it).unwrap()).collect()
}

/// Tries one input, and says what it was if it fails.
fn hold(name: &str, target: Target, input: &[u8], from: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        let why = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        panic!("{name}, {from}, b\"{}\": {}", input.escape_ascii(), why.unwrap_or("it panicked"));
    }
}

#[test]
fn every_target_has_its_corpus_and_its_fuzzer() {
    let all: BTreeSet<String> = targets::ALL.iter().map(|it| it.0.to_owned()).collect();
    assert_eq!(all.len(), targets::ALL.len());
    assert_eq!(names(&folder("corpus")), all);
    assert_eq!(names(&folder("fuzz_targets")), all);
}

#[test]
fn the_corpus_holds() {
    for (name, target) in targets::ALL {
        corpus(name).iter().for_each(|input| hold(name, *target, input, "from the corpus"));
    }
}

#[test]
fn what_is_near_the_corpus_holds() {
    let seed = env::var("MOONGATE_FUZZ_SEED").map_or(SEED, |it| it.parse().unwrap());
    for (name, target) in targets::ALL {
        let mut rng = fastrand::Rng::with_seed(seed);
        let corpus = corpus(name);
        let began = Instant::now();
        let from = format!("changed with MOONGATE_FUZZ_SEED={seed}");
        let mut rounds = 0;
        while rounds < ROUNDS && began.elapsed() < TIME {
            let mut input = corpus[rng.usize(..corpus.len())].clone();
            (0..rng.usize(1..5)).for_each(|_| change(&mut input, &corpus, &mut rng));
            input.truncate(LONGEST);
            hold(name, *target, &input, &from);
            rounds += 1;
        }
        assert!(rounds > 20, "{name} takes a tenth of a second for each of {rounds} inputs");
    }
}

/// One small change, or a piece of another input.
fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut fastrand::Rng) {
    fn piece(rng: &mut fastrand::Rng, length: usize) -> std::ops::Range<usize> {
        let start = rng.usize(..=length);
        start..length.min(start + rng.usize(..=16))
    }
    let at = rng.usize(..=input.len());
    let here = piece(rng, input.len());
    match rng.u8(..7) {
        0 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
        1 if at < input.len() => input[at] = rng.u8(..),
        2 => input.insert(at, b"\0\t\r\n \"%,./:;=?@[\\]_0aF\x7f\xff"[rng.usize(..24)]),
        3 => drop(input.drain(here)),
        4 => {
            let copy = input[here].to_vec();
            drop(input.splice(at..at, copy));
        }
        _ => {
            let other = &corpus[rng.usize(..corpus.len())];
            let piece = piece(rng, other.len());
            drop(input.splice(here, other[piece].to_vec()));
        }
    }
}
