//! An API key that a program prints, such as a password manager.

use std::{
    io::{self, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use crate::{Error, Result};

/// For the program to end.
const TIMEOUT: Duration = Duration::from_secs(30);
/// For what it printed to arrive once it has ended: whoever it started may keep the pipe open.
const GRACE: Duration = Duration::from_secs(1);
/// Between two looks whether it has ended.
const STEP: Duration = Duration::from_millis(5);
/// Most of its output that is read, in bytes.
const MAX_OUTPUT: u64 = 1 << 16;
/// Most of its complaints that an error repeats, in characters.
const MAX_WORDS: usize = 400;

/// A command line for the system's shell that prints a key and nothing else.
#[derive(Debug, Clone)]
pub(crate) struct KeyCommand(pub String);

impl KeyCommand {
    /// The key that it prints now.
    ///
    /// # Errors
    /// [`Error::KeyCommand`].
    pub fn run(&self) -> Result<String> {
        self.run_within(TIMEOUT)
    }

    fn run_within(&self, limit: Duration) -> Result<String> {
        let ended = self.end_within(limit).map_err(|error| Error::KeyCommand {
            command: self.0.clone(),
            problem: format!("cannot be run: {error}"),
        })?;
        let key = String::from_utf8_lossy(&ended.output).trim().to_owned();
        let problem = match ended.status {
            None => format!("did not end within {limit:?}"),
            Some(status) if !status.success() => format!("ended with {status}"),
            Some(_) if key.is_empty() => "printed nothing".to_owned(),
            Some(_) if !is_usable(&key) => {
                "printed more than a key: one word is expected".to_owned()
            }
            Some(_) => return Ok(key),
        };
        // What it printed may be a key all the same, and may be written in the command.
        let hide = |text: &str| {
            let secrets = key.split_whitespace().filter(|word| word.len() >= 8);
            secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "(secret)"))
        };
        let complaints = String::from_utf8_lossy(&ended.complaints);
        let complaints = complaints.split_whitespace().collect::<Vec<_>>().join(" ");
        let complaints: String = hide(&complaints).chars().take(MAX_WORDS).collect();
        Err(Error::KeyCommand {
            command: hide(&self.0),
            problem: match complaints.is_empty() {
                true => problem,
                false => format!("{problem}: {complaints}"),
            },
        })
    }

    fn end_within(&self, limit: Duration) -> io::Result<Ended> {
        let (shell, flag) = match cfg!(windows) {
            true => ("cmd", "/C"),
            false => ("sh", "-c"),
        };
        let mut child = Command::new(shell)
            .args([flag, &self.0])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = read(child.stdout.take())?;
        let complaints = read(child.stderr.take())?;
        let status = wait(&mut child, limit)?;
        Ok(Ended {
            status,
            output: output.recv_timeout(GRACE).unwrap_or_default(),
            complaints: complaints.recv_timeout(GRACE).unwrap_or_default(),
        })
    }
}

/// How a command ended, and what it wrote to its standard output and error.
struct Ended {
    /// None when it was killed for taking too long.
    status: Option<ExitStatus>,
    output: Vec<u8>,
    complaints: Vec<u8>,
}

/// Reads to the end on a thread of its own, so that a full pipe stops nobody.
fn read(pipe: Option<impl Read + Send + 'static>) -> io::Result<Receiver<Vec<u8>>> {
    let (send, receive) = channel();
    let work = move || {
        let mut bytes = Vec::new();
        // What was read before an error still counts.
        let _ = pipe.map(|pipe| pipe.take(MAX_OUTPUT).read_to_end(&mut bytes));
        let _ = send.send(bytes);
    };
    thread::Builder::new().name("tinsmith-key".into()).spawn(work)?;
    Ok(receive)
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(STEP);
    }
}

/// Whether HTTP can carry it as a key.
pub(crate) fn is_usable(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn run(command: &str) -> Result<String, String> {
        KeyCommand(command.to_owned()).run().map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_is_the_one_word_that_is_printed() {
        let printed = run("echo; echo not for you >&2; printf '  tml-%s\\n' key");
        assert_eq!(printed.as_deref(), Ok("tml-key"));
    }

    #[test]
    fn an_error_tells_the_command_how_it_ended_and_its_complaints_but_no_key() {
        let told = |command: &str| run(command).unwrap_err();
        assert_eq!(
            told("echo no profile >&2; exit 3"),
            "the command for the API key, `echo no profile >&2; exit 3`, ended with exit status: 3: no profile"
        );
        assert!(told("true").ends_with("`true`, printed nothing"));
        let leaky = told("echo tml-very-secret tml-very-secret; echo bad tml-very-secret >&2");
        assert_eq!(
            leaky,
            "the command for the API key, `echo (secret) (secret); echo bad (secret) >&2`, printed more than a key: one word \
             is expected: bad (secret)"
        );
        assert!(told("tinsmith-no-such-program").contains("exit status: 127"));
        assert!(told("head -c 100000 /dev/zero | tr '\\0' 'x' >&2; false").len() < 600);
    }

    #[test]
    fn a_command_that_does_not_end_is_killed() {
        let command = KeyCommand("exec sleep 600".to_owned());
        let error = command.run_within(Duration::from_millis(20)).unwrap_err();
        assert!(error.to_string().ends_with("did not end within 20ms"), "{error}");
    }
}
