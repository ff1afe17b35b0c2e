//! `moongate completions` and `moongate man`: what other programs are to know of the command line.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::CommandFactory;

use super::CommandLine;

/// Prints what completes commands, flags and values in this shell.
pub fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "moongate", &mut out);
    told(io::stdout().write_all(&out).context("writing the completions"))
}

/// Prints the manual page, or writes one for each command to a directory.
pub fn man(dir: Option<&Path>) -> ExitCode {
    told(pages(dir))
}

fn told(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("moongate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn pages(dir: Option<&Path>) -> Result<()> {
    let command = CommandLine::command();
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).context("writing the manual page")?;
        return io::stdout().write_all(&page).context("writing the manual page");
    };
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    clap_mangen::generate_to(command, dir).with_context(|| format!("writing manual pages to {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command() {
        let dir = tempfile::tempdir().unwrap();
        pages(Some(dir.path())).unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        for wanted in ["moongate.1", "moongate-check.1", "moongate-plugin-new.1", "moongate-status.1"] {
            assert!(names.iter().any(|it| it == wanted), "{wanted} is not among {names:?}");
        }
        let page = fs::read_to_string(dir.path().join("moongate-config.1")).unwrap();
        assert!(page.contains(".TH") && page.contains("\\-\\-schema") && page.contains("EXAMPLES"), "{page}");
    }

    #[test]
    fn shells_are_told_of_every_command() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "moongate", &mut out);
            let text = String::from_utf8(out).unwrap();
            for word in ["healthcheck", "zookeeper", "completions"] {
                assert!(text.contains(word), "{shell} is not told of {word}");
            }
        }
    }
}
