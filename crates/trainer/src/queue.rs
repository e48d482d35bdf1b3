//! The order of a model's training requests: by sequence id from 1, whatever the order of arrival.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{Error, Result};

/// The requests of one model. `J` is what runs when a request's turn comes.
#[derive(Debug)]
pub(crate) struct Sequence<J> {
    next: u64,
    waiting: BTreeMap<u64, J>,
    /// Every accepted id: a digest of its body, and the request id it was answered with.
    accepted: HashMap<u64, (u64, String)>,
    /// Ids whose request was refused as bad. A later request steps over them.
    refused: BTreeSet<u64>,
}

impl<J> Default for Sequence<J> {
    fn default() -> Self {
        Self {
            next: 1,
            waiting: BTreeMap::new(),
            accepted: HashMap::new(),
            refused: BTreeSet::new(),
        }
    }
}

impl<J> Sequence<J> {
    /// The first answer, when `seq_id` has been accepted before with this body.
    pub(crate) fn repeated(&self, seq_id: u64, body: u64) -> Result<Option<&str>> {
        match self.accepted.get(&seq_id) {
            Some((first, request_id)) if *first == body => Ok(Some(request_id)),
            Some(_) => Err(Error::Conflict(format!(
                "seq_id {seq_id} has been used for another request; a new request takes the next number"
            ))),
            None if seq_id < self.next => Err(Error::Conflict(format!(
                "seq_id {seq_id} is past; the next of this model is {} (the first is 1)",
                self.next
            ))),
            None => Ok(None),
        }
    }

    /// Takes a request that is not [`repeated`](Self::repeated).
    pub(crate) fn accept(&mut self, seq_id: u64, body: u64, request_id: String, job: J) {
        self.refused.remove(&seq_id);
        self.accepted.insert(seq_id, (body, request_id));
        self.waiting.insert(seq_id, job);
    }

    /// Notes that the request of this id was refused. It may be sent again, corrected, until a
    /// later one has run.
    pub(crate) fn refuse(&mut self, seq_id: u64) {
        if seq_id >= self.next && !self.accepted.contains_key(&seq_id) {
            self.refused.insert(seq_id);
        }
    }

    /// The request whose turn it is, once.
    pub(crate) fn pop(&mut self) -> Option<J> {
        let (&first, _) = self.waiting.first_key_value()?;
        while self.next < first && self.refused.remove(&self.next) {
            self.next += 1;
        }
        if first != self.next {
            return None;
        }
        self.next += 1;
        self.waiting.pop_first().map(|(_, job)| job)
    }

    /// Everything that waits, in order; for when its turn will not come.
    pub(crate) fn drain(&mut self) -> Vec<J> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// The id that everything waiting waits for, when something is.
    pub(crate) fn gap(&self) -> Option<u64> {
        (!self.waiting.is_empty()).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(sequence: &mut Sequence<u64>) -> Vec<u64> {
        std::iter::from_fn(|| sequence.pop()).collect()
    }

    fn accept(sequence: &mut Sequence<u64>, seq_id: u64) {
        assert_eq!(sequence.repeated(seq_id, seq_id).unwrap(), None);
        sequence.accept(seq_id, seq_id, format!("r{seq_id}"), seq_id);
    }

    #[test]
    fn an_early_arrival_waits_for_the_gap_to_fill() {
        let mut sequence = Sequence::default();
        accept(&mut sequence, 2);
        assert!(drain(&mut sequence).is_empty());
        assert_eq!(sequence.gap(), Some(1));
        accept(&mut sequence, 1);
        assert_eq!(drain(&mut sequence), [1, 2]);
        assert_eq!(sequence.gap(), None);
    }

    #[test]
    fn a_repeat_gets_the_first_answer_and_another_body_a_conflict() {
        let mut sequence = Sequence::default();
        accept(&mut sequence, 1);
        assert_eq!(sequence.repeated(1, 1).unwrap(), Some("r1"));
        assert_eq!(drain(&mut sequence), [1]);
        assert_eq!(sequence.repeated(1, 1).unwrap(), Some("r1"));
        assert!(matches!(sequence.repeated(1, 99), Err(Error::Conflict(_))));
        assert!(matches!(sequence.repeated(0, 0), Err(Error::Conflict(_))));
    }

    #[test]
    fn a_refused_id_can_be_sent_again_or_stepped_over() {
        let mut sequence = Sequence::default();
        sequence.refuse(1);
        accept(&mut sequence, 1);
        assert_eq!(drain(&mut sequence), [1]);
        sequence.refuse(2);
        accept(&mut sequence, 3);
        assert_eq!(drain(&mut sequence), [3]);
        assert!(matches!(sequence.repeated(2, 2), Err(Error::Conflict(_))));
    }

    proptest! {
        #[test]
        fn any_order_of_arrival_runs_in_sequence(order in Just((1..=20u64).collect::<Vec<_>>()).prop_shuffle()) {
            let mut sequence = Sequence::default();
            let mut ran = Vec::new();
            for seq_id in order {
                accept(&mut sequence, seq_id);
                ran.extend(drain(&mut sequence));
            }
            prop_assert_eq!(ran, (1..=20).collect::<Vec<_>>());
        }
    }
}
