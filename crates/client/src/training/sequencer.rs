//! The order of a model's training requests.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
};

use crate::{Error, RequestOrder, Result, training::history::History};

/// Hands out sequence ids, from 1, to one holder of the turn at a time.
///
/// A server executes a model's requests in the order of their ids and waits for a missing one, so
/// an id must be sent once it is taken, and in order. Whoever holds the [`Turn`] is alone: both
/// passes of a custom loss keep it, which reserves the ids of both, and ids not sent when it ends
/// were never taken.
#[derive(Debug)]
pub(crate) struct Order {
    state: Mutex<State>,
    history: Mutex<History>,
    holder: Mutex<Option<ThreadId>>,
}

#[derive(Debug)]
struct State {
    next: u64,
    poisoned: Option<String>,
}

impl Order {
    pub fn new() -> Self {
        Order {
            state: Mutex::new(State { next: 1, poisoned: None }),
            history: Mutex::default(),
            holder: Mutex::new(None),
        }
    }

    /// Waits for the turn, to send to a server that orders requests `by` this.
    pub fn turn(&self, by: RequestOrder) -> Result<Turn<'_>> {
        // Waiting for a turn that this very thread holds would never end.
        if *lock(&self.holder) == Some(thread::current().id()) {
            return Err(Error::InsideLoss);
        }
        let state = lock(&self.state);
        if let Some(first) = &state.poisoned {
            return Err(Error::Poisoned { first: first.clone() });
        }
        *lock(&self.holder) = Some(thread::current().id());
        let order = self;
        Ok(Turn { order, by, state })
    }

    /// What the requests so far have done; to be held for a moment only.
    pub fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }
}

/// The right to send training requests.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    order: &'a Order,
    by: RequestOrder,
    state: MutexGuard<'a, State>,
}

impl Turn<'_> {
    /// The id of the next request.
    pub fn next_id(&self) -> u64 {
        self.state.next
    }

    /// What the requests so far have done.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.order.history()
    }

    /// Sends one request under the next id. When the server has seen it and it fails all the same,
    /// nobody can tell whether the server counts the id as used, so no later request can be put in
    /// order: the client is poisoned. A server that does not look at ids may refuse a request
    /// without that effect.
    pub fn send<T>(&mut self, request: impl FnOnce(u64) -> Result<T>) -> Result<T> {
        let seq_id = self.state.next;
        match request(seq_id) {
            Ok(sent) => {
                self.state.next += 1;
                Ok(sent)
            }
            Err(error) => {
                if self.is_lost(&error) {
                    self.state.poisoned = Some(error.to_string());
                }
                Err(error)
            }
        }
    }

    /// Sends `n` requests under the next ids; `send` is given the first of these, and gives what
    /// was accepted, with the error that kept it from sending the rest. A batch in part is worse
    /// than none, so that poisons the client too.
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
                if !accepted.is_empty() || self.is_lost(&error) {
                    self.state.poisoned = Some(error.to_string());
                }
                Err(error)
            }
        }
    }
}

impl Turn<'_> {
    /// Whether the id of a request that failed so may be used up.
    fn is_lost(&self, error: &Error) -> bool {
        let is_refusal = matches!(error, Error::Status { .. } | Error::WrongDialect { .. })
            && !error.may_have_been_applied();
        error.was_seen_by_server() && !(is_refusal && self.by == RequestOrder::ByArrival)
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
    use crate::RequestOrder::{ByArrival, BySequence};

    #[test]
    fn ids_start_at_one_and_only_sent_ones_are_used() {
        let order = Order::new();
        let mut turn = order.turn(BySequence).unwrap();
        assert_eq!(turn.send(Ok).unwrap(), 1);
        assert_eq!(turn.send(Ok).unwrap(), 2);
        drop(turn);
        let mut turn = order.turn(BySequence).unwrap();
        let unsendable = wire_error();
        assert!(turn.send(|_| Err::<(), _>(Error::Encode(unsendable))).is_err());
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
    fn a_refusal_is_harmless_where_ids_do_not_count() {
        let order = Order::new();
        let mut turn = order.turn(ByArrival).unwrap();
        assert!(turn.send(|_| refused::<()>(422)).is_err());
        assert_eq!(turn.send(Ok).unwrap(), 1);
        // This one may have been executed.
        assert!(turn.send(|_| refused::<()>(500)).is_err());
        drop(turn);
        assert!(matches!(order.turn(ByArrival), Err(Error::Poisoned { .. })));
    }

    #[test]
    fn a_failed_send_poisons_with_the_first_error() {
        let order = Order::new();
        let sent = order.turn(BySequence).unwrap().send(|_| refused::<()>(422));
        assert!(sent.is_err());
        let error = order.turn(BySequence).unwrap_err();
        assert!(
            matches!(&error, Error::Poisoned { first } if first.contains("422: unfit")),
            "{error}"
        );
    }

    #[test]
    fn a_batch_sent_in_part_poisons_and_one_not_sent_at_all_does_not() {
        let order = Order::new();
        let unsent = || Some(Error::SessionOver);
        let mut turn = order.turn(BySequence).unwrap();
        assert!(turn.send_batch(3, |_| (Vec::<u64>::new(), unsent())).is_err());
        assert_eq!(turn.send_batch(3, |first| (vec![first; 3], None)).unwrap(), [1; 3]);
        assert!(turn.send_batch(3, |first| (vec![first], unsent())).is_err());
        drop(turn);
        assert!(matches!(order.turn(BySequence), Err(Error::Poisoned { .. })));
    }

    #[test]
    fn the_holder_of_the_turn_is_told_so_instead_of_waiting_for_itself() {
        let order = Order::new();
        let turn = order.turn(BySequence).unwrap();
        assert!(matches!(order.turn(BySequence), Err(Error::InsideLoss)));
        drop(turn);
        assert!(order.turn(BySequence).is_ok());
    }

    #[test]
    fn a_panic_while_holding_the_turn_does_not_lose_the_order() {
        let order = Order::new();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut turn = order.turn(BySequence).unwrap();
            turn.send(Ok).unwrap();
            panic!("in a loss function");
        }));
        assert!(panicked.is_err());
        assert_eq!(order.turn(BySequence).unwrap().send(Ok).unwrap(), 2);
    }
}
