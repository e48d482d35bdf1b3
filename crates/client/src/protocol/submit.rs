//! Sending requests whose results come later.

use serde::Serialize;
use tinsmith_wire::Submitted;

use crate::{
    CallInfo, Result,
    http::{
        message::{Payload, Request, SHORT_ANSWER},
        retry::Purpose,
    },
    protocol::{endpoints::Task, poll::Pending, session::Session},
};

/// How one request is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Submission<'a> {
    /// What it is called in errors.
    call: &'static str,
    path: &'static str,
    request_type: &'static str,
    purpose: Purpose,
    seq_id: Option<u64>,
    headers: &'a [(&'a str, &'a str)],
    /// Most bytes of its result.
    max_result: u64,
}

impl<'a> Submission<'a> {
    pub fn new<Q, A>(task: &Task<Q, A>) -> Self {
        Submission {
            call: task.name,
            path: task.path,
            request_type: task.request_type,
            purpose: task.purpose,
            seq_id: None,
            headers: &[],
            max_result: SHORT_ANSWER,
        }
    }

    pub fn purpose(self, purpose: Purpose) -> Self {
        Submission { purpose, ..self }
    }

    pub fn seq(self, seq_id: u64) -> Self {
        Submission { seq_id: Some(seq_id), ..self }
    }

    pub fn headers(self, headers: &'a [(&'a str, &'a str)]) -> Self {
        Submission { headers, ..self }
    }

    pub fn max_result(self, max_result: u64) -> Self {
        Submission { max_result, ..self }
    }

    /// Sent to the address of another task, under its own name.
    pub fn at<Q, A>(self, task: &Task<Q, A>) -> Self {
        Submission { path: task.path, ..self }
    }
}

impl Session {
    /// Sends a JSON request whose result comes later.
    pub fn submit<Q: Serialize, A>(
        &self,
        task: &Task<Q, A>,
        seq_id: Option<u64>,
        body: &Q,
    ) -> Result<Pending<A>> {
        let submission = Submission { seq_id, ..Submission::new(task) };
        let (_, pending) = self.submit_payload(submission, &Payload::json(body)?)?;
        Ok(pending)
    }

    /// Sends a request whose result comes later, and gives what the server said on accepting it.
    pub fn submit_payload<A>(
        &self,
        submission: Submission<'_>,
        payload: &Payload,
    ) -> Result<(Submitted, Pending<A>)> {
        self.check_alive()?;
        let mut info = CallInfo {
            seq_id: submission.seq_id,
            knows_repetition: self.api.retry.resend_uncertain && self.flavour.knows_repetition(),
            ..CallInfo::of(submission.call)
        };
        let Submission { path, headers, purpose, .. } = submission;
        let request = Request { headers, ..Request::post(path, payload) };
        let start = self.api.clock.now();
        let (submitted, reply): (Submitted, _) =
            self.api.exchange_and_read(&request, &mut info, purpose)?;
        self.flavour.learn(&reply);
        let mut pending = Pending::new(
            &info,
            submission.request_type,
            submitted.request_id.clone(),
            self.api.since(start),
            submission.max_result,
        );
        pending.bytes.sent = payload.bytes.len() as u64;
        Ok((submitted, pending))
    }
}
