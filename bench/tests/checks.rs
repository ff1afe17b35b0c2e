//! That the benchmark notices what would make its numbers worthless. With the floor as the proxy, which is part of it.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(["--peer", "floor", "--rounds", "1", "--seconds", "0.2"]).args(arguments);
    command
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs it to its end, which must be a failure that says this.
fn fails(arguments: &[&str], because: &str) {
    let output = bench(arguments).output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(because), "{said}");
}

#[test]
fn plain_requests_are_measured() {
    let file = std::env::temp_dir().join(format!("bench-checks-{}.json", std::process::id()));
    let name = file.to_str().unwrap();
    let workloads = ["small", "one", "body-64k", "body-1m", "upload-1m", "fresh", "rate-10k"];
    let mut arguments = vec!["--json", name];
    workloads.iter().for_each(|it| arguments.extend(["--workload", it]));
    let output = bench(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let run: serde_json::Value = serde_json::from_str(&text).unwrap();
    let measured = run["workloads"].as_array().unwrap();
    assert_eq!(measured.len(), workloads.len());
    for workload in measured {
        let outcome = &workload["rows"][0]["rounds"][0]["outcome"];
        assert!(outcome["requests"].as_u64().unwrap() > 10, "{workload}");
        assert!(outcome["used"]["seconds"].as_f64().unwrap() > 0.0, "{workload}");
    }
}

#[test]
fn an_answer_of_another_status_ends_the_run() {
    fails(&["--workload", "test-status"], "answered 500");
}

#[test]
fn an_answer_of_another_length_ends_the_run() {
    fails(&["--workload", "test-length"], "a body of 65536 bytes instead of 100");
}

#[test]
fn a_peer_that_dies_ends_the_run() {
    let mut run = bench(&["--workload", "small", "--seconds", "20"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines().map(Result::unwrap);
    let started = lines.find_map(|it| Some(it.strip_prefix("floor: process ")?.to_owned())).unwrap();
    assert!(Command::new("kill").args(["-KILL", &started]).status().unwrap().success());
    let said: Vec<String> = lines.collect();
    assert_eq!(run.wait().unwrap().code(), Some(1), "{said:?}");
    assert!(said.iter().any(|it| it.contains("measuring floor")), "{said:?}");
}

#[test]
fn nothing_outlives_a_run_that_is_killed() {
    let mut run = bench(&["--workload", "small", "--seconds", "20"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines().map(Result::unwrap);
    let started = lines.find_map(|it| Some(it.strip_prefix("floor: process ")?.to_owned())).unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    // What has ended and is not yet waited for has no memory, and so no command line.
    while std::fs::read(format!("/proc/{started}/cmdline")).is_ok_and(|it| !it.is_empty()) {
        assert!(std::time::Instant::now() < until, "process {started} is still there");
        std::thread::yield_now();
    }
}

#[test]
fn what_is_not_known_is_refused() {
    fails(&["--workload", "smal"], "no workload is called smal");
    fails(&["--peer", "ngin"], "no peer is called ngin");
    fails(&["--frobnicate"], "unknown argument --frobnicate");
}
