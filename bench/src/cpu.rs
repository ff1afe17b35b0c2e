//! What processes use: time on a processor and memory, as the kernel has it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// A process and all below it.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|it| it.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        // The name, in parentheses, may have spaces and parentheses of its own.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(process);
    }
    let (mut found, mut queue) = (Vec::new(), vec![root]);
    while let Some(process) = queue.pop() {
        found.push(process);
        queue.extend(children.remove(&process).unwrap_or_default());
    }
    found
}

/// What each thread has run so far, in nanoseconds, and what of it the kernel thinks was outside of it.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    threads: BTreeMap<u32, u64>,
    user: Duration,
}

/// Time on a processor between two samples.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Used {
    /// All of it, exact up to a tick of the kernel's clock.
    pub(crate) seconds: f64,
    /// Outside of the kernel, in hundredths of a second.
    pub(crate) user_seconds: f64,
}

impl Sample {
    /// Of these processes, now. One that is gone has no threads.
    pub(crate) fn take(processes: &[u32]) -> Sample {
        let mut sample = Sample::default();
        for process in processes {
            for entry in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
                let Some(thread) = entry.file_name().to_str().and_then(|it| it.parse().ok()) else { continue };
                let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
                if let Some(run) = text.split(' ').next().and_then(|it| it.parse().ok()) {
                    sample.threads.insert(thread, run);
                }
            }
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            let ticks = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(11)?.parse::<u64>().ok());
            // Linux counts in hundredths of a second wherever it tells programs.
            sample.user += Duration::from_millis(ticks.unwrap_or(0) * 10);
        }
        sample
    }

    /// What was used since `before`. A thread that ended took its time with it, so that is an error.
    pub(crate) fn since(&self, before: &Sample) -> Result<Used> {
        if let Some(gone) = before.threads.keys().find(|it| !self.threads.contains_key(it)) {
            bail!("thread {gone} of the proxy ended while it was measured");
        }
        let run = |(thread, run): (&u32, &u64)| run - before.threads.get(thread).unwrap_or(&0);
        let nanoseconds: u64 = self.threads.iter().map(run).sum();
        Ok(Used {
            seconds: nanoseconds as f64 / 1e9,
            user_seconds: self.user.saturating_sub(before.user).as_secs_f64(),
        })
    }
}

/// Bytes of memory of some processes together.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Private and no file's: what connections and requests cost.
    pub(crate) anonymous: u64,
    /// Everything resident, what is shared divided by those who share it.
    pub(crate) proportional: u64,
}

impl Memory {
    pub(crate) fn of(processes: &[u32]) -> Memory {
        let mut all = Memory::default();
        for process in processes {
            let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
            let kibibytes = |name: &str| {
                let line = text.lines().find_map(|it| it.strip_prefix(name))?;
                line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
            };
            all.anonymous += kibibytes("Anonymous:").unwrap_or(0) * 1024;
            all.proportional += kibibytes("Pss:").unwrap_or(0) * 1024;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_memory_of_this_process_are_found() {
        let own = std::process::id();
        let before = Sample::take(&[own]);
        let until = std::time::Instant::now() + Duration::from_millis(30);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        let used = Sample::take(&[own]).since(&before);
        // Other tests' threads end meanwhile.
        if let Ok(used) = used {
            assert!(used.seconds > 0.01, "{used:?}");
        }
        assert!(Memory::of(&[own]).anonymous > 0);
        assert!(tree(own).contains(&own));
    }
}
