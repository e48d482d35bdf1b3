//! Leaving early.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Ends every wait of the clients that were made with it, within about half a second, by
/// [`Error::Cancelled`](crate::Error::Cancelled). Clones share the decision.
///
/// What the server has accepted goes on there; a future whose wait was cancelled can be asked again
/// once the token is [`reset`](Self::reset), a checkpoint be saved.
///
/// ```
/// use tinsmith_client::{CancelToken, Error, LoraConfig, ServiceClient};
/// # let trainer = tinsmith_trainer::Trainer::spawn()?;
/// let cancel = CancelToken::new();
/// let builder = ServiceClient::builder().base_url(trainer.url()).cancel_token(&cancel);
/// let training = builder.connect()?.create_lora_training_client("tiny-qwen3", &LoraConfig::rank(8))?;
/// cancel.cancel(); // from a signal handler, say
/// assert!(matches!(training.save_state("a"), Err(Error::Cancelled { .. })));
/// cancel.reset();
/// training.save_state("a")?.result()?; // nothing was sent in vain
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// One that has not been used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every wait. Does nothing else, so a signal handler may call it.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Lets calls wait again.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether waits are to end.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
