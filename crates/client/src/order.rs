//! The order of a model's training requests.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
};

use crate::{Error, Result, history::History};

/// Hands out sequence ids, from 1, to one holder of the turn at a time.
///
/// A server executes a model's requests in the order of their ids and waits for a missing one, so an id must be sent
/// once it is taken, and in order. Whoever holds the [`Turn`] is alone: both passes of a custom loss keep it, which
/// reserves the ids of both, and ids not sent when it ends were never taken.
#[derive(Debug)]
pub(crate) struct Order {
    state: Mutex<State>,
    holder: Mutex<Option<ThreadId>>,
}

#[derive(Debug)]
struct State {
    next: u64,
    history: History,
    poisoned: Option<String>,
}

impl Order {
    pub fn new() -> Self {
        Order {
            state: Mutex::new(State {
                next: 1,
                history: History::default(),
                poisoned: None,
            }),
            holder: Mutex::new(None),
        }
    }

    /// Waits for the turn.
    pub fn turn(&self) -> Result<Turn<'_>> {
        // Waiting for a turn that this very thread holds would never end.
        if *lock(&self.holder) == Some(thread::current().id()) {
            return Err(Error::InsideLoss);
        }
        let state = lock(&self.state);
        if let Some(first) = &state.poisoned {
            return Err(Error::Poisoned {
                first: first.clone(),
            });
        }
        *lock(&self.holder) = Some(thread::current().id());
        Ok(Turn { order: self, state })
    }
}

/// The right to send training requests.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    order: &'a Order,
    state: MutexGuard<'a, State>,
}

impl Turn<'_> {
    /// The id of the next request.
    pub fn next_id(&self) -> u64 {
        self.state.next
    }

    /// What the requests so far have done.
    pub fn history(&mut self) -> &mut History {
        &mut self.state.history
    }

    /// Sends one request under the next id. When the server has seen it and it fails all the same, nobody can tell
    /// whether the server counts the id as used, so no later request can be put in order: the client is poisoned.
    pub fn send<T>(&mut self, request: impl FnOnce(u64) -> Result<T>) -> Result<T> {
        let seq_id = self.state.next;
        match request(seq_id) {
            Ok(sent) => {
                self.state.next += 1;
                Ok(sent)
            }
            Err(error) => {
                if error.was_seen_by_server() {
                    self.state.poisoned = Some(error.to_string());
                }
                Err(error)
            }
        }
    }

    /// Sends `n` requests under the next ids; `send` is given the first of these, and gives what was accepted, with the
    /// error that kept it from sending the rest. A batch in part is worse than none, so that poisons the client too.
    pub fn send_batch<T>(
        &mut self,
        n: usize,
        send: impl FnOnce(u64) -> (Vec<T>, Option<Error>),
    ) -> Result<Vec<T>> {
        let (accepted, error) = send(self.state.next);
        match error {
            None => {
                self.state.next += n as u64;
                Ok(accepted)
            }
            Some(error) => {
                if !accepted.is_empty() || error.was_seen_by_server() {
                    self.state.poisoned = Some(error.to_string());
                }
                Err(error)
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.order.holder) = None;
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
        let order = Order::new();
        let mut turn = order.turn().unwrap();
        assert_eq!(turn.send(Ok).unwrap(), 1);
        assert_eq!(turn.send(Ok).unwrap(), 2);
        drop(turn);
        let mut turn = order.turn().unwrap();
        let unsendable = wire_error();
        assert!(
            turn.send(|_| Err::<(), _>(Error::Encode(unsendable)))
                .is_err()
        );
        assert_eq!(turn.send(Ok).unwrap(), 3);
    }

    fn wire_error() -> tinsmith_wire::Error {
        let nan = tinsmith_wire::ConfigValue::from(f64::NAN);
        tinsmith_wire::json::to_vec(&nan).unwrap_err()
    }

    #[test]
    fn a_failed_send_poisons_with_the_first_error() {
        let order = Order::new();
        let sent: Result<()> = order.turn().unwrap().send(|_| {
            Err(Error::Status {
                call: Box::new(crate::CallInfo::of("optim_step")),
                status: 422,
                message: "unfit".into(),
            })
        });
        assert!(sent.is_err());
        let error = order.turn().unwrap_err();
        assert!(
            matches!(&error, Error::Poisoned { first } if first.contains("422: unfit")),
            "{error}"
        );
    }

    #[test]
    fn a_batch_sent_in_part_poisons_and_one_not_sent_at_all_does_not() {
        let order = Order::new();
        let unsent = || Some(Error::SessionOver);
        let mut turn = order.turn().unwrap();
        assert!(
            turn.send_batch(3, |_| (Vec::<u64>::new(), unsent()))
                .is_err()
        );
        assert_eq!(
            turn.send_batch(3, |first| (vec![first; 3], None)).unwrap(),
            [1; 3]
        );
        assert!(turn.send_batch(3, |first| (vec![first], unsent())).is_err());
        drop(turn);
        assert!(matches!(order.turn(), Err(Error::Poisoned { .. })));
    }

    #[test]
    fn the_holder_of_the_turn_is_told_so_instead_of_waiting_for_itself() {
        let order = Order::new();
        let turn = order.turn().unwrap();
        assert!(matches!(order.turn(), Err(Error::InsideLoss)));
        drop(turn);
        assert!(order.turn().is_ok());
    }

    #[test]
    fn a_panic_while_holding_the_turn_does_not_lose_the_order() {
        let order = Order::new();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut turn = order.turn().unwrap();
            turn.send(Ok).unwrap();
            panic!("in a loss function");
        }));
        assert!(panicked.is_err());
        assert_eq!(order.turn().unwrap().send(Ok).unwrap(), 2);
    }
}
