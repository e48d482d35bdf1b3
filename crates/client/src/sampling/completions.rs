//! Waiting for many samples with one question (`retrieve_futures`) instead of one for each.

use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tinsmith_wire::{
    Completion, FuturesTarget, RetrieveFuturesRequest, RetrieveFuturesResponse, SampleResponse,
    json,
};

use crate::{
    CallInfo, Result,
    http::{
        connection::{Failure, Limits},
        message::{LIST, Payload, Request},
    },
    protocol::{endpoints::RETRIEVE_FUTURES, poll::Pending, session::Session},
};

/// Which samples of one sampling session are known to have ended.
///
/// Of the threads that wait one asks the server, and wakes the others with what it learns.
#[derive(Debug, Default)]
pub(crate) struct Completions {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    cursor: u64,
    /// Those that nobody has fetched yet, with their sizes.
    ended: HashMap<String, Option<u64>>,
    /// Those that were fetched, of which the server is to be told.
    retrieved: Vec<String>,
    is_asking: bool,
    bad_requests: u32,
    /// The server does not answer such questions: each sample is asked for by itself.
    is_refused: bool,
}

/// Between two questions when the server answers at once that nothing has ended.
const POLITE: Duration = Duration::from_millis(100);
/// Between two looks whether a wait is cancelled.
const SLICE: Duration = Duration::from_millis(400);
/// After an answer that may pass.
const PAUSE: Duration = Duration::from_secs(1);
/// How many answers 400 are forgiven.
const MAX_BAD_REQUESTS: u32 = 3;

impl Completions {
    /// Waits until the sample has ended, in whichever way.
    pub fn wait(
        &self,
        session: &Session,
        target: &FuturesTarget,
        pending: &mut Pending<SampleResponse>,
        at: Duration,
        limit: Duration,
    ) -> Result<()> {
        let Some(id) = pending.info.request_id.clone() else {
            return Ok(());
        };
        let clock = &session.api.clock;
        let mut state = self.lock();
        loop {
            if let Some(size) = state.ended.remove(&id) {
                if size.is_some() {
                    pending.is_complete(size);
                }
                return Ok(());
            }
            if state.is_refused {
                return Ok(());
            }
            session.api.check_cancelled(&pending.info)?;
            let left = at.saturating_sub(clock.now());
            if left.is_zero() {
                return Err(pending.deadline(limit));
            }
            if state.is_asking {
                let woken = self.changed.wait_timeout(state, left.min(SLICE));
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            state.is_asking = true;
            let request = state.question(target);
            drop(state);
            let news = ask(session, &request, left);
            state = self.lock();
            state.is_asking = false;
            let pause = state.learn(news, &request);
            self.changed.notify_all();
            if let Some(pause) = pause {
                drop(state);
                session.api.sleep(pause.min(left), &pending.info)?;
                state = self.lock();
            }
        }
    }

    /// Remembers to tell the server that a result, or the error in its place, was fetched.
    pub fn retrieved(&self, info: &CallInfo) {
        self.lock().retrieved.extend(info.request_id.clone());
    }

    /// What is still to be told of results that were fetched, with no question.
    pub fn unacknowledged(&self, target: &FuturesTarget) -> Option<RetrieveFuturesRequest> {
        let state = self.lock();
        let is_told = state.is_refused || state.retrieved.is_empty();
        (!is_told).then(|| RetrieveFuturesRequest { timeout: Some(0.0), ..state.question(target) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the server said to the question.
enum News {
    Ended(RetrieveFuturesResponse),
    Nothing,
    Later,
    BadRequest,
    Refused,
}

fn ask(session: &Session, request: &RetrieveFuturesRequest, left: Duration) -> News {
    let Ok(payload) = Payload::json(request) else {
        return News::Refused;
    };
    let api = &session.api;
    let path = RETRIEVE_FUTURES.path("");
    let key = api.idempotency_key();
    let request = Request {
        headers: &[("X-Idempotency-Key", &key)],
        max_answer: LIST,
        ..Request::post(&path, &payload)
    };
    let limits = Limits { total: left, silence: api.retry.poll_timeout };
    match api.send(&request, limits) {
        Ok(reply) => match reply.status {
            200..300 => json::from_slice(&reply.body).map_or(News::Refused, News::Ended),
            408 => News::Nothing,
            400 => News::BadRequest,
            429 | 500.. => News::Later,
            _ => News::Refused,
        },
        Err(Failure::TimedOut) => News::Nothing,
        Err(_) => News::Later,
    }
}

impl State {
    fn question(&self, target: &FuturesTarget) -> RetrieveFuturesRequest {
        RetrieveFuturesRequest {
            target: target.clone(),
            prev_cursor: self.cursor,
            timeout: None,
            retrieved_request_ids: self.retrieved.clone(),
        }
    }

    /// Takes in the answer to `request`; gives the time to leave the server alone.
    fn learn(&mut self, news: News, request: &RetrieveFuturesRequest) -> Option<Duration> {
        match news {
            News::Ended(answer) => {
                self.cursor = answer.cursor;
                self.bad_requests = 0;
                // What was fetched since the question was asked waits for the next one.
                self.retrieved.drain(..request.retrieved_request_ids.len());
                let ended = answer.completions.into_iter().map(
                    |Completion {
                         request_id, response_payload_uncompressed_size: size, ..
                     }| (request_id, size),
                );
                let before = self.ended.len();
                self.ended.extend(ended);
                // A server that does not hold the question should not be asked all the time.
                (self.ended.len() == before).then_some(POLITE)
            }
            News::Nothing => None,
            News::Later => Some(PAUSE),
            News::BadRequest => {
                self.bad_requests += 1;
                self.is_refused = self.bad_requests > MAX_BAD_REQUESTS;
                Some(PAUSE)
            }
            News::Refused => {
                self.is_refused = true;
                None
            }
        }
    }
}
