//! Servers of others, each a process group of its own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A server that runs until it is dropped.
pub struct Server {
    process: Child,
    pub url: String,
}

/// Installing aside, none takes longer to start, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

impl Server {
    /// Starts `command`, which will listen on `port` of 127.0.0.1, and waits until it says that it
    /// is healthy. What it writes goes to `log`.
    pub fn start(command: &mut Command, port: u16, log: PathBuf) -> Result<Self> {
        let output = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let process = command
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let mut server = Self { process, url: format!("http://127.0.0.1:{port}") };
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = server.process.try_wait()? {
                bail!("the server ended with {status}:\n{}", tail(&log));
            }
            if healthy(port).unwrap_or(false) {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        bail!("the server was not ready after {PATIENCE:?}:\n{}", tail(&log))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The whole group: servers start processes of their own, which outlive them otherwise.
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.process.wait();
    }
}

/// A port of 127.0.0.1 that is free at the moment.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

fn healthy(port: u16) -> std::io::Result<bool> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    connection.write_all(b"GET /api/v1/healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut answer = [0; 12];
    connection.read_exact(&mut answer)?;
    Ok(answer.ends_with(b" 200"))
}

fn tail(log: &PathBuf) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
