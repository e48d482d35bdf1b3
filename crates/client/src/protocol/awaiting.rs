//! Results for async programs, without a runtime of their own.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    thread,
};

use crate::{ApiFuture, Error, Result};

/// An [`ApiFuture`] that is awaited: a thread waits for the result, from the first poll on, and
/// wakes the task.
///
/// Dropping it ends the task's interest, not the waiting.
#[must_use = "futures do nothing unless polled"]
pub struct Awaiting<T> {
    state: State<T>,
}

enum State<T> {
    Idle(ApiFuture<T>),
    Waiting(Arc<Mutex<Shared<T>>>),
    Done,
}

struct Shared<T> {
    result: Option<Result<T>>,
    waker: Waker,
}

impl<T> fmt::Debug for Awaiting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Idle(future) => write!(f, "Awaiting({future:?})"),
            State::Waiting(_) => f.write_str("Awaiting(under way)"),
            State::Done => f.write_str("Awaiting(done)"),
        }
    }
}

impl<T: Send + 'static> IntoFuture for ApiFuture<T> {
    type Output = Result<T>;
    type IntoFuture = Awaiting<T>;

    /// Waits as [`result`](ApiFuture::result) does, in an async program of any runtime. Sending a
    /// request still blocks until the server has accepted it, so that belongs on a thread for
    /// blocking work.
    ///
    /// ```
    /// use tinsmith_client::{ModelInput, ServiceClient};
    /// # fn block_on<F: std::future::Future>(future: F) -> F::Output {
    /// #     struct Unpark(std::thread::Thread);
    /// #     impl std::task::Wake for Unpark {
    /// #         fn wake(self: std::sync::Arc<Self>) { self.0.unpark() }
    /// #     }
    /// #     let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    /// #     let mut future = std::pin::pin!(future);
    /// #     loop {
    /// #         match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
    /// #             std::task::Poll::Ready(output) => return output,
    /// #             std::task::Poll::Pending => std::thread::park(),
    /// #         }
    /// #     }
    /// # }
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// let sampler = service.create_sampling_client("tiny-qwen3")?;
    /// let logprobs = sampler.compute_logprobs(&ModelInput::from_tokens(vec![1, 2, 3]))?;
    /// assert_eq!(block_on(async { logprobs.await })?.len(), 3);
    /// # anyhow::Ok(())
    /// ```
    fn into_future(self) -> Awaiting<T> {
        Awaiting { state: State::Idle(self) }
    }
}

impl<T> Unpin for Awaiting<T> {}

impl<T: Send + 'static> Future for Awaiting<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        if let State::Waiting(shared) = &self.state {
            let mut state = lock(shared);
            let Some(result) = state.result.take() else {
                state.waker.clone_from(context.waker());
                return Poll::Pending;
            };
            drop(state);
            self.state = State::Done;
            return Poll::Ready(result);
        }
        match std::mem::replace(&mut self.state, State::Done) {
            State::Idle(future) => match wait(future, context.waker()) {
                Ok(shared) => {
                    self.state = State::Waiting(shared);
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error)),
            },
            State::Waiting(_) | State::Done => Poll::Ready(Err(Error::ResultTaken)),
        }
    }
}

fn wait<T: Send + 'static>(future: ApiFuture<T>, waker: &Waker) -> Result<Arc<Mutex<Shared<T>>>> {
    let shared = Arc::new(Mutex::new(Shared { result: None, waker: waker.clone() }));
    let told = shared.clone();
    let work = move || {
        let result = future.result();
        let mut state = lock(&told);
        state.result = Some(result);
        let waker = state.waker.clone();
        drop(state);
        waker.wake();
    };
    thread::Builder::new().name("tinsmith-awaiting".into()).spawn(work).map_err(|error| {
        Error::Config { what: "thread of an awaited result", reason: error.to_string() }
    })?;
    Ok(shared)
}

fn lock<T>(shared: &Mutex<Shared<T>>) -> MutexGuard<'_, Shared<T>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
