//! The program: it says where it listens, serves, and explains its options.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tinsmith-trainer"));
    command.args(args);
    command
}

/// Ends the program also when the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_serves_at_the_url_it_prints() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program(&["--port", "0", "--seed", "3"]);
    let config = r#"{"fwdbwd_max_chunk_len": 4}"#;
    command.args(["--client-config", config, "--state-dir"]);
    let child = command.arg(folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut running = Running(child);
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let url = first.strip_prefix("listening on ").unwrap();
    assert!(lines.next().unwrap().unwrap().contains("tiny-qwen3"));
    let models = ureq::get(format!("{url}/api/v1/get_server_capabilities"))
        .call()
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    assert!(models.contains("tiny-qwen3"), "{models}");
    let told = ureq::post(format!("{url}/api/v1/client/config"))
        .send(r#"{"sdk_version": "test"}"#)
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    assert!(told.contains(r#""fwdbwd_max_chunk_len":4"#), "{told}");
}

#[test]
fn unknown_options_are_refused_and_help_lists_the_known() {
    let help = program(&["--help"]).output().unwrap();
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("--state-dir"));
    let config = program(&["--client-config", "{"]).output().unwrap();
    assert!(!config.status.success());
    assert!(String::from_utf8_lossy(&config.stderr).contains("--client-config: "));
    let wrong = program(&["--prot", "1"]).output().unwrap();
    assert!(!wrong.status.success());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("--prot"));
}
