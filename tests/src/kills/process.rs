//! A process that can be killed and stopped, and what it writes.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::pause;

/// It is killed when this is dropped. It sees the end of its standard input when this program ends
/// in any other way.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    input: Option<ChildStdin>,
}

impl Process {
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let output = child.stdout.take().context("a child without output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
        });
        let input = child.stdin.take();
        Ok(Process { child, lines, input })
    }

    /// The next line that it writes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn next_line(&self) -> Result<String> {
        Ok(self.lines.recv()?)
    }

    /// Writes it an empty line.
    pub fn write_line(&mut self) -> Result<()> {
        let input = self.input.as_mut().context("a child without input")?;
        Ok(input.write_all(b"\n")?)
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGSTOP, and SIGCONT after this time.
    pub fn stop_for(&self, time: Duration) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP)?;
        // Returns once the process has stopped.
        waitpid(Some(pid), WaitOptions::UNTRACED)?;
        pause(time);
        Ok(kill_process(pid, Signal::CONT)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.kill();
    }
}
