//! Taking a training request into its model's sequence.

use std::sync::Arc;

use tinsmith_wire::{
    LoadWeightsRequest, OptimStepRequest, Pass, PassRequest, SaveWeightsForSamplerRequest,
    SaveWeightsRequest, Submitted,
};

use super::{Hub, Request};
use crate::Result;
use crate::bases::Base;
use crate::engine::Engine;
use crate::futures::Place;
use crate::outcome::Outcome;
use crate::stats::Operation;

/// A request that has a place in its model's order.
pub(super) trait Ordered {
    fn place(&self) -> Place;

    fn operation(&self) -> Operation {
        Operation::Other
    }
}

impl Ordered for PassRequest<'_> {
    fn place(&self) -> Place {
        (self.model_id.clone(), self.seq_id)
    }

    fn operation(&self) -> Operation {
        match self.pass {
            Pass::Forward => Operation::Forward,
            Pass::ForwardBackward => Operation::ForwardBackward,
        }
    }
}

impl Ordered for OptimStepRequest {
    fn place(&self) -> Place {
        (self.model_id.clone(), self.seq_id)
    }

    fn operation(&self) -> Operation {
        Operation::OptimStep
    }
}

macro_rules! ordered {
    ($($request:ty)*) => {
        $(impl Ordered for $request {
            fn place(&self) -> Place {
                (self.model_id.clone(), self.seq_id)
            }
        })*
    };
}
ordered!(SaveWeightsRequest LoadWeightsRequest SaveWeightsForSamplerRequest);

impl Hub {
    /// Checks a training request with `prepare`, which gives what to run, and queues it at its
    /// place.
    pub(super) fn submit<T, P, W>(
        self: &Arc<Self>,
        request: Request<T>,
        prepare: P,
    ) -> Result<Submitted>
    where
        T: Ordered,
        P: FnOnce(T, &Base) -> Result<W>,
        W: FnOnce(&mut Engine, &Self) -> Result<Outcome> + Send + 'static,
    {
        let Request { body, digest } = request;
        let (model_id, seq_id) = body.place();
        let operation = body.operation();
        let answer = |request_id: &str| Submitted {
            request_id: request_id.to_owned(),
            model_id: Some(model_id.clone()),
            ..Submitted::default()
        };
        let base = {
            let mut state = self.lock();
            let entry = state.model(&model_id)?;
            if let Some(first) = entry.sequence.repeated(seq_id, digest)? {
                return Ok(answer(first));
            }
            entry.base.clone()
        };
        let work = prepare(body, &base);

        let mut state = self.lock();
        let entry = state.model(&model_id)?;
        let work = match work {
            Ok(work) => work,
            Err(error) => {
                entry.sequence.refuse(seq_id);
                return Err(error);
            }
        };
        // Twin requests may both have come this far; one of them is the first.
        if let Some(first) = entry.sequence.repeated(seq_id, digest)? {
            return Ok(answer(first));
        }
        let place = (model_id.clone(), seq_id);
        let request_id = self.futures.issue(&self.instance, Some(place));
        let counted = model_id.clone();
        let job = self.job(request_id.clone(), move |engine, hub| {
            let outcome = work(engine, hub)?;
            hub.count(&counted, |stats| stats.executed.add(operation));
            Ok(outcome)
        });
        entry.sequence.accept(seq_id, digest, request_id.clone(), job);
        while let Some(job) = state.model(&model_id)?.sequence.pop() {
            state.send(job)?;
        }
        state.touch(&model_id);
        drop(state);
        self.count(&model_id, |stats| stats.received.add(operation));
        Ok(answer(&request_id))
    }
}
