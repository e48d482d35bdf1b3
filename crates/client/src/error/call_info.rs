//! What is known of a call under way, for errors to tell.

use std::{fmt, ops::Range};

/// What was going on when a call failed. Prints as one line.
///
/// ```
/// use tinsmith_client::{Error, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// let Err(Error::Status { call, .. }) = service.weights_info("tinker://nobody/weights/a") else { panic!() };
/// assert_eq!((call.call, call.attempts, call.last_status), ("weights_info", 1, Some(404)));
/// assert!(call.to_string().ends_with("/api/v1/weights_info, 1 attempt, last status 404"));
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallInfo {
    /// The call, such as `optim_step`.
    pub call: &'static str,
    /// The request's place in the model's order, for training requests.
    pub seq_id: Option<u64>,
    /// The server's id of the request, once it was accepted: from then on its result is waited for.
    pub request_id: Option<String>,
    /// Where it was sent, for calls that are answered at once: the first of them show whether that
    /// is a trainer.
    pub url: Option<String>,
    /// The data that the request holds, where a batch goes in several requests: the server numbers
    /// those of each request from 0.
    pub data: Option<Range<usize>>,
    /// HTTP requests made in this phase.
    pub attempts: u32,
    /// Status of the last answer.
    pub last_status: Option<u16>,
    /// What the server said of its queue.
    pub queue_state: Option<String>,
    /// Why, in the server's words.
    pub queue_state_reason: Option<String>,
    /// Whether some attempt may have been executed: nothing came back, or nothing definite.
    pub(crate) is_uncertain: bool,
    /// Whether the server knows a repetition of the request when it sees one.
    pub(crate) knows_repetition: bool,
}

impl CallInfo {
    /// A call that nothing has been sent for.
    pub(crate) fn of(call: &'static str) -> Self {
        CallInfo {
            call,
            seq_id: None,
            request_id: None,
            url: None,
            data: None,
            attempts: 0,
            last_status: None,
            queue_state: None,
            queue_state_reason: None,
            is_uncertain: false,
            knows_repetition: true,
        }
    }
}

impl fmt::Display for CallInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.call)?;
        if let Some(seq_id) = self.seq_id {
            write!(f, " (seq {seq_id})")?;
        }
        if let Some(Range { start, end }) = self.data {
            write!(f, " with data {start}..{end} of the batch as its 0..{}", end - start)?;
        }
        match (&self.request_id, &self.url) {
            (Some(id), _) => write!(f, ", waiting for the result of request {id}")?,
            (None, Some(url)) => write!(f, ", sending to {url}")?,
            (None, None) => f.write_str(", sending")?,
        }
        let s = if self.attempts == 1 { "" } else { "s" };
        write!(f, ", {} attempt{s}", self.attempts)?;
        if let Some(status) = self.last_status {
            write!(f, ", last status {status}")?;
        }
        if let Some(state) = &self.queue_state {
            write!(f, ", queue {state}")?;
        }
        if let Some(reason) = &self.queue_state_reason {
            write!(f, " ({reason})")?;
        }
        Ok(())
    }
}
