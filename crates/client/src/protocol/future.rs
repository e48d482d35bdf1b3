//! Results that the server has promised.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    Error, Result,
    protocol::{
        answer::Answer,
        poll::{Bytes, Deadline, Pending},
        session::Session,
    },
};

/// A request that the server has accepted and whose result comes later.
///
/// Dropping it does not undo the request; a [sample](crate::SamplingClient) may be cancelled by it.
///
/// ```
/// # use std::time::Duration;
/// # use tinsmith_client::{AdamParams, LoraConfig, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
/// # let training = service.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
/// let mut step = training.optim_step(&AdamParams::default())?; // accepted
/// let done = match step.try_result()? {
///     Some(done) => done,
///     None => step.result_timeout(Duration::from_secs(60))?, // and asked again after a timeout, if you like
/// };
/// assert_eq!(done.metrics["grad_norm"], 0.0);
/// # anyhow::Ok(())
/// ```
#[must_use = "the request runs on the server; result() waits for it and tells whether it failed"]
pub struct ApiFuture<T> {
    wait: Box<dyn Wait<T> + Send>,
    limit: Duration,
}

impl<T> fmt::Debug for ApiFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiFuture({})", self.wait.describe())
    }
}

impl<T> ApiFuture<T> {
    /// Waits for the result, for
    /// [`RetryConfig::result_timeout`](crate::RetryConfig::result_timeout) at most.
    ///
    /// # Errors
    /// [`Error::RequestFailed`] when the server could not execute the request; [`Error::Deadline`]
    /// when time runs out; [`Error::Expired`], [`Error::Status`], [`Error::Reply`].
    pub fn result(mut self) -> Result<T> {
        let limit = self.limit;
        self.result_timeout(limit)
    }

    /// Waits this long at most. After [`Error::Deadline`] it can be asked again.
    ///
    /// # Errors
    /// As [`result`](Self::result), and [`Error::ResultTaken`] after the result was given.
    pub fn result_timeout(&mut self, limit: Duration) -> Result<T> {
        let until = Deadline::of(limit, self.wait.session());
        let result = self.wait.wait(until)?;
        // Without a result in time there is an error, so this is never none.
        result.ok_or(Error::ResultTaken)
    }

    /// Asks the server once, for a moment. `None`: not ready.
    ///
    /// # Errors
    /// As [`result_timeout`](Self::result_timeout), except for time.
    pub fn try_result(&mut self) -> Result<Option<T>> {
        self.wait.wait(Deadline::Once)
    }

    /// The future of one request.
    pub(crate) fn single<P>(
        session: Arc<Session>,
        pending: Pending<P>,
        finish: impl FnOnce(&Arc<Session>, P) -> Result<T> + Send + 'static,
    ) -> Self
    where
        P: Answer + Send + 'static,
        T: 'static,
    {
        Self::joined(session, vec![pending], move |session, mut parts, _| match parts.pop() {
            Some(part) => finish(session, part),
            None => Err(Error::ResultTaken),
        })
    }

    /// The future of several requests whose results are put together; `finish` also learns how many
    /// bytes they took.
    pub(crate) fn joined<P>(
        session: Arc<Session>,
        pending: Vec<Pending<P>>,
        finish: impl FnOnce(&Arc<Session>, Vec<P>, Bytes) -> Result<T> + Send + 'static,
    ) -> Self
    where
        P: Answer + Send + 'static,
        T: 'static,
    {
        Self::new(Joined { session, pending, finish: Some(finish) })
    }

    /// One whose result is there.
    pub(crate) fn ready(session: Arc<Session>, value: T) -> Self
    where
        T: Send + 'static,
    {
        Self::new(Ready { session, value: Some(value) })
    }

    pub(crate) fn new(wait: impl Wait<T> + Send + 'static) -> Self {
        ApiFuture { limit: wait.session().api.retry.result_timeout, wait: Box::new(wait) }
    }
}

impl<T: 'static> ApiFuture<T> {
    /// Does this when the server says that it has not executed the request.
    pub(crate) fn when_failed(self, work: impl FnOnce() + Send + 'static) -> Self {
        ApiFuture {
            limit: self.limit,
            wait: Box::new(Watched { wait: self.wait, work: Some(work) }),
        }
    }
}

/// A way to wait for a result.
pub(crate) trait Wait<T> {
    /// `None` only when just asking once.
    fn wait(&mut self, until: Deadline) -> Result<Option<T>>;
    /// What is waited for, in words.
    fn describe(&self) -> String;
    /// The session it belongs to.
    fn session(&self) -> &Session;
}

struct Ready<T> {
    session: Arc<Session>,
    value: Option<T>,
}

impl<T> Wait<T> for Ready<T> {
    fn wait(&mut self, _: Deadline) -> Result<Option<T>> {
        self.value.take().map(Some).ok_or(Error::ResultTaken)
    }

    fn describe(&self) -> String {
        "done".to_owned()
    }

    fn session(&self) -> &Session {
        &self.session
    }
}

struct Watched<T, F> {
    wait: Box<dyn Wait<T> + Send>,
    work: Option<F>,
}

impl<T, F: FnOnce()> Wait<T> for Watched<T, F> {
    fn wait(&mut self, until: Deadline) -> Result<Option<T>> {
        let result = self.wait.wait(until);
        if let Err(error) = &result
            && error.is_failure()
            && let Some(work) = self.work.take()
        {
            work();
        }
        result
    }

    fn describe(&self) -> String {
        self.wait.describe()
    }

    fn session(&self) -> &Session {
        self.wait.session()
    }
}

struct Joined<P, F> {
    session: Arc<Session>,
    pending: Vec<Pending<P>>,
    finish: Option<F>,
}

impl<T, P, F> Wait<T> for Joined<P, F>
where
    P: Answer,
    F: FnOnce(&Arc<Session>, Vec<P>, Bytes) -> Result<T>,
{
    fn wait(&mut self, until: Deadline) -> Result<Option<T>> {
        if self.finish.is_none() {
            return Err(Error::ResultTaken);
        }
        for pending in &mut self.pending {
            if !pending.wait(&self.session, until)? {
                return Ok(None);
            }
        }
        let finish = self.finish.take().ok_or(Error::ResultTaken)?;
        let bytes = self.pending.iter().map(|pending| pending.bytes).sum();
        let parts = self.pending.drain(..).filter_map(|pending| pending.value).collect();
        finish(&self.session, parts, bytes).map(Some)
    }

    fn describe(&self) -> String {
        let parts: Vec<String> =
            self.pending.iter().map(|pending| pending.info.to_string()).collect();
        parts.join("; ")
    }

    fn session(&self) -> &Session {
        &self.session
    }
}
