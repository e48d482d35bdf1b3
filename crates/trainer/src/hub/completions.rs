//! Which samples have ended, for clients that wait for many of them with one question.

use std::collections::VecDeque;

use tinsmith_wire::{
    Completion, CompletionState, FuturesTarget, RetrieveFuturesRequest, RetrieveFuturesResponse,
};
use tokio::time::{Duration, Instant, timeout_at};

use super::Hub;
use crate::{Error, Result};

/// Sequence ids of the n-th client of a sampling session start at n times this.
const IDS_PER_CLIENT: u64 = 1_000_000_000;

/// The samples of one client that have ended, in that order. The client's cursor counts them.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Those that the client has been told of and has acknowledged.
    forgotten: u64,
    kept: VecDeque<Completion>,
}

impl Ended {
    /// Those after `cursor`; what comes before is forgotten.
    fn after(&mut self, cursor: u64) -> Result<RetrieveFuturesResponse> {
        let all = self.forgotten + self.kept.len() as u64;
        if cursor > all {
            return Err(Error::field(
                "prev_cursor",
                format!("{cursor} was never given, the last one is {all}"),
            ));
        }
        while self.forgotten < cursor {
            self.kept.pop_front();
            self.forgotten += 1;
        }
        Ok(RetrieveFuturesResponse {
            completions: self.kept.iter().cloned().collect(),
            cursor: all,
        })
    }
}

impl Hub {
    /// Notes that a sample has ended: request `request_id`, in this place of a sampling session.
    pub(super) fn note_ended(&self, (session, seq_id): (&str, u64), request_id: &str) {
        let state = match self.futures.has_failed(request_id) {
            true => CompletionState::Failed,
            false => CompletionState::Finished,
        };
        // A session that has ended meanwhile has nobody to tell.
        if let Ok(sampler) = self.lock().sampler(session) {
            let ended = sampler.ended.entry(seq_id / IDS_PER_CLIENT).or_default();
            ended.kept.push_back(Completion {
                state,
                request_id: request_id.to_owned(),
                response_payload_uncompressed_size: None,
            });
        }
        self.sample_ended.notify_waiters();
    }

    /// The samples that have ended since the question before; waits for one if there is none.
    pub(crate) async fn retrieve_futures(
        &self,
        request: RetrieveFuturesRequest,
    ) -> Result<RetrieveFuturesResponse> {
        let FuturesTarget::SamplingSession { sampling_session_id, cloned_sampler_id } =
            request.target
        else {
            return Err(Error::field("target", "name a sampling session"));
        };
        let longest = self.settings.long_poll;
        let patience = match request.timeout.map(Duration::try_from_secs_f64) {
            Some(Ok(asked)) => asked.min(longest),
            Some(Err(problem)) => return Err(Error::field("timeout", problem.to_string())),
            None => longest,
        };
        let end = Instant::now() + patience;
        loop {
            let ended = self.sample_ended.notified();
            tokio::pin!(ended);
            // From here on no end is missed.
            ended.as_mut().enable();
            let news = self
                .lock()
                .sampler(&sampling_session_id)?
                .ended
                .entry(cloned_sampler_id)
                .or_default()
                .after(request.prev_cursor)?;
            if !news.completions.is_empty() || timeout_at(end, ended).await.is_err() {
                return Ok(news);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cursor_acknowledges_is_forgotten_and_nothing_else() {
        let completion = |id: &str| Completion {
            state: CompletionState::Finished,
            request_id: id.to_owned(),
            response_payload_uncompressed_size: None,
        };
        let mut ended = Ended::default();
        ended.kept.extend([completion("a"), completion("b")]);
        let ids = |ended: &mut Ended, cursor| {
            let news = ended.after(cursor).unwrap();
            let ids = news.completions.into_iter().map(|it| it.request_id);
            (ids.collect::<Vec<_>>(), news.cursor)
        };
        let both = (vec!["a".to_owned(), "b".to_owned()], 2);
        assert_eq!(ids(&mut ended, 0), both);
        assert_eq!(ids(&mut ended, 0), both, "the answer may have been lost");
        ended.kept.push_back(completion("c"));
        assert_eq!(ids(&mut ended, 2), (vec!["c".to_owned()], 3));
        assert_eq!(ids(&mut ended, 3), (vec![], 3));
        let error = ended.after(4).unwrap_err().to_string();
        assert_eq!(error, "prev_cursor: 4 was never given, the last one is 3");
    }
}
