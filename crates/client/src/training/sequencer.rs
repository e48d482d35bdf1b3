//! The order of a model's training requests.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
};

use crate::{Error, Result, training::history::History};

/// Hands out sequence ids, from 1, to one holder of the turn at a time.
///
/// A server executes a model's requests in the order of their ids and waits for a missing one, so
/// an id must be sent once it is taken, and in order. Whoever holds the [`Turn`] is alone: both
/// passes of a custom loss keep it, which reserves the ids of both, and ids not sent when it ends
/// were never taken.
#[derive(Debug)]
pub(crate) struct Sequencer {
    state: Mutex<State>,
    history: Mutex<History>,
    holder: Mutex<Option<ThreadId>>,
}

#[derive(Debug)]
struct State {
    next: u64,
    /// Whether the server has refused a request under the next id: some servers count it as used.
    was_refused: bool,
    /// Why nobody can tell what the server has done.
    poisoned: Option<Poison>,
}

#[derive(Debug)]
struct Poison {
    first: String,
    /// The id of the next request if the server has used up all that may have reached it.
    after: u64,
}

impl Sequencer {
    pub fn new() -> Self {
        Sequencer {
            state: Mutex::new(State { next: 1, was_refused: false, poisoned: None }),
            history: Mutex::default(),
            holder: Mutex::new(None),
        }
    }

    /// Waits for the turn to send.
    pub fn turn(&self) -> Result<Turn<'_>> {
        let turn = self.turn_to_save()?;
        match &turn.state.poisoned {
            Some(poison) => Err(Error::Poisoned { first: poison.first.clone() }),
            None => Ok(turn),
        }
    }

    /// Waits for the turn to save, which is given even when nothing else can be sent any more: what
    /// has been trained need not be lost.
    pub fn turn_to_save(&self) -> Result<Turn<'_>> {
        // Waiting for a turn that this very thread holds would never end.
        if *lock(&self.holder) == Some(thread::current().id()) {
            return Err(Error::InsideLoss);
        }
        let state = lock(&self.state);
        *lock(&self.holder) = Some(thread::current().id());
        Ok(Turn { sequencer: self, state })
    }

    /// What the requests so far have done; to be held for a moment only.
    pub fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }
}

/// The right to send training requests.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    sequencer: &'a Sequencer,
    state: MutexGuard<'a, State>,
}

impl Turn<'_> {
    /// The id of the next request.
    pub fn next_id(&self) -> u64 {
        self.state.next
    }

    /// What the requests so far have done.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.sequencer.history()
    }

    /// Sends one request under the next id.
    ///
    /// An id that was not sent, or whose request the server has refused without executing it, is
    /// that of the next request. A server that counts it as used all the same says so by a conflict
    /// (409), and is then sent the one after. When the server may have executed the request and it
    /// fails all the same, nobody can tell what later ones would be applied to: the client is
    /// poisoned. Even then a save may be sent.
    pub fn send<T>(&mut self, request: impl Fn(u64) -> Result<T>) -> Result<T> {
        self.send_from_next(1, |id| {
            request(id).map_err(|error| NotAccepted { error: Box::new(error), in_part: false })
        })
    }

    /// The request under the next id was executed, as is known now, although it failed so.
    pub fn was_executed(&mut self, error: &Error) {
        self.state.next += 1;
        self.state.was_refused = false;
        let text = error.to_string();
        self.state.poisoned.take_if(|poison| poison.first == text);
    }

    /// Sends `n` requests under the next ids; `send` is given the first of these, and gives what
    /// was accepted, with the error that kept it from sending the rest. A batch in part is worse
    /// than none, so that poisons the client too.
    pub fn send_batch<T>(
        &mut self,
        n: usize,
        send: impl Fn(u64) -> (Vec<T>, Option<Error>),
    ) -> Result<Vec<T>> {
        self.send_from_next(n as u64, |first| match send(first) {
            (accepted, None) => Ok(accepted),
            (accepted, Some(error)) => {
                Err(NotAccepted { error: Box::new(error), in_part: !accepted.is_empty() })
            }
        })
    }

    /// Sends what takes `n` ids from the next on, or from those after it if the server counts the
    /// next as used.
    fn send_from_next<T>(
        &mut self,
        n: u64,
        send: impl Fn(u64) -> Result<T, NotAccepted>,
    ) -> Result<T> {
        let may_be_used = self.state.was_refused || self.state.poisoned.is_some();
        let mut first = self.state.next;
        let mut sent = send(first);
        if may_be_used && sent.as_ref().is_err_and(NotAccepted::is_conflict) {
            first = self.state.poisoned.as_ref().map_or(first + 1, |poison| poison.after);
            sent = send(first);
        }
        match sent {
            Ok(sent) => {
                self.state.next = first + n;
                self.state.was_refused = false;
                Ok(sent)
            }
            Err(NotAccepted { error, in_part }) => {
                if in_part || error.may_have_been_applied() {
                    self.poison(&error, first + n);
                } else if error.is_refusal() {
                    self.state.was_refused = true;
                }
                Err(*error)
            }
        }
    }

    fn poison(&mut self, error: &Error, after: u64) {
        if self.state.poisoned.is_none() {
            self.state.poisoned = Some(Poison { first: error.to_string(), after });
        }
    }
}

/// What the server did not accept, or not all of it.
struct NotAccepted {
    error: Box<Error>,
    /// Whether some of it was accepted.
    in_part: bool,
}

impl NotAccepted {
    fn is_conflict(&self) -> bool {
        !self.in_part && matches!(*self.error, Error::Status { status: 409, .. })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.sequencer.holder) = None;
    }
}

/// A panic elsewhere, in a loss function say, leaves the ids as they were: still right.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn ids_start_at_one_and_only_sent_ones_are_used() {
        let sequencer = Sequencer::new();
        let mut turn = sequencer.turn().unwrap();
        assert_eq!(turn.send(Ok).unwrap(), 1);
        assert_eq!(turn.send(Ok).unwrap(), 2);
        drop(turn);
        let mut turn = sequencer.turn().unwrap();
        assert!(turn.send(|_| Err::<(), _>(Error::Encode(wire_error()))).is_err());
        assert_eq!(turn.send(Ok).unwrap(), 3);
    }

    fn wire_error() -> tinsmith_wire::Error {
        let nan = tinsmith_wire::ConfigValue::from(f64::NAN);
        tinsmith_wire::json::to_vec(&nan).unwrap_err()
    }

    fn refused<T>(status: u16) -> Result<T> {
        Err(Error::Status {
            call: Box::new(crate::CallInfo::of("optim_step")),
            status,
            message: "unfit".into(),
        })
    }

    #[test]
    fn a_refused_id_is_that_of_the_next_request() {
        let sequencer = Sequencer::new();
        let mut turn = sequencer.turn().unwrap();
        assert!(turn.send(|_| refused::<()>(422)).is_err());
        assert_eq!(turn.send(Ok).unwrap(), 1);
        assert_eq!(turn.send(Ok).unwrap(), 2);
    }

    #[test]
    fn a_server_that_counts_a_refused_id_as_used_is_sent_the_one_after() {
        let sequencer = Sequencer::new();
        let mut turn = sequencer.turn().unwrap();
        assert!(turn.send(|_| refused::<()>(422)).is_err());
        let strict = |id| if id == 1 { refused(409) } else { Ok(id) };
        assert_eq!(turn.send(strict).unwrap(), 2);
        assert_eq!(turn.send(Ok).unwrap(), 3);
        // A batch, too.
        assert!(turn.send(|_| refused::<()>(422)).is_err());
        let strict = |first| match first {
            4 => (Vec::new(), refused::<u64>(409).err()),
            first => (vec![first, first + 1], None),
        };
        assert_eq!(turn.send_batch(2, strict).unwrap(), [5, 6]);
        assert_eq!(turn.send(Ok).unwrap(), 7);
        // Without a refusal before it, a conflict is about the request.
        assert!(turn.send(|_| refused::<()>(409)).is_err());
    }

    #[test]
    fn what_may_have_been_executed_poisons_with_the_first_error() {
        let sequencer = Sequencer::new();
        assert!(sequencer.turn().unwrap().send(|_| refused::<()>(500)).is_err());
        let error = sequencer.turn().unwrap_err();
        assert!(
            matches!(&error, Error::Poisoned { first } if first.contains("500: unfit")),
            "{error}"
        );
    }

    #[test]
    fn a_save_may_be_sent_all_the_same_whether_the_id_was_used_or_not() {
        for used in [false, true] {
            let sequencer = Sequencer::new();
            assert!(sequencer.turn().unwrap().send(|_| refused::<()>(500)).is_err());
            let server = |id| if used && id == 1 { refused(409) } else { Ok(id) };
            let mut turn = sequencer.turn_to_save().unwrap();
            assert_eq!(turn.send(server).unwrap(), 1 + u64::from(used));
            drop(turn);
            assert!(sequencer.turn().is_err());
        }
    }

    #[test]
    fn a_batch_sent_in_part_poisons_and_one_not_sent_at_all_does_not() {
        let sequencer = Sequencer::new();
        let unsent = || Some(Error::SessionOver);
        let mut turn = sequencer.turn().unwrap();
        assert!(turn.send_batch(3, |_| (Vec::<u64>::new(), unsent())).is_err());
        assert_eq!(turn.send_batch(3, |first| (vec![first; 3], None)).unwrap(), [1; 3]);
        assert!(turn.send_batch(3, |first| (vec![first], unsent())).is_err());
        drop(turn);
        assert!(matches!(sequencer.turn(), Err(Error::Poisoned { .. })));
    }

    #[test]
    fn the_holder_of_the_turn_is_told_so_instead_of_waiting_for_itself() {
        let sequencer = Sequencer::new();
        let turn = sequencer.turn().unwrap();
        assert!(matches!(sequencer.turn(), Err(Error::InsideLoss)));
        drop(turn);
        assert!(sequencer.turn().is_ok());
    }

    #[test]
    fn a_panic_while_holding_the_turn_does_not_lose_the_order() {
        let sequencer = Sequencer::new();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut turn = sequencer.turn().unwrap();
            turn.send(Ok).unwrap();
            panic!("in a loss function");
        }));
        assert!(panicked.is_err());
        assert_eq!(sequencer.turn().unwrap().send(Ok).unwrap(), 2);
    }
}
