//! Custom losses that the server evaluates.

use tinsmith_wire::{
    CreateCustomLossRequest, CreateCustomLossResponse, CustomLossInput, LossFn, LossFnConfig,
    LossGraph,
};

#[cfg(doc)]
use crate::TrainingClient;
use crate::{ApiFuture, Error, Result, ServiceClient, protocol::session::Submission};

/// Most arguments of a loss.
const MAX_INPUTS: usize = 16;
/// Longest name of an argument.
const MAX_NAME: usize = 64;

impl ServiceClient {
    /// Hands a loss function, as a graph of PyTorch's operations, to a server that evaluates such
    /// losses itself, and gives what [`forward_backward`](TrainingClient::forward_backward) then
    /// takes. One pass is enough there; the data need all of the `inputs` but the first, which is
    /// `logprobs`. The loss is known within this session only; create it once.
    ///
    /// The function is of one datum, and gives its loss and a dictionary of metrics named
    /// `custom/..:sum` or `custom/..:mean`. Which operations a server knows it says in its error.
    ///
    /// # Errors
    /// [`Error::Config`], before anything is sent, for a server without the switch
    /// [`custom_loss_server_side`](tinsmith_wire::ClientConfig::custom_loss_server_side) and for
    /// inputs that no server takes; [`Error::RequestFailed`], [`Error::Status`] for a graph that it
    /// refuses.
    ///
    /// ```
    /// use tinsmith_client::{ServiceClient, wire::{CustomLossInput, LossGraph, json}};
    /// # let trainer = tinsmith_trainer::Trainer::spawn()?;
    /// # let service = ServiceClient::builder().base_url(trainer.url()).connect()?;
    /// let negative_sum: LossGraph = json::from_slice(br#"{"format": 1, "nodes": [
    ///     {"op": "placeholder", "name": "logprobs", "target": "logprobs"},
    ///     {"op": "call_method", "name": "sum_1", "target": "sum", "args": [{"ref": "logprobs"}]},
    ///     {"op": "call_function", "name": "neg", "target": "operator.neg", "args": [{"ref": "sum_1"}]},
    ///     {"op": "output", "name": "output", "target": "output", "args": [{"tuple": [{"ref": "neg"}, {"dict": {}}]}]}]}"#)?;
    /// let inputs = [CustomLossInput { name: "logprobs".into(), rank: 1 }];
    /// // The local trainer is no such server; elsewhere this gives a loss_fn and its config.
    /// let error = service.create_custom_loss("negative_sum", &inputs, &negative_sum).unwrap_err();
    /// assert!(error.to_string().contains("forward_backward_custom"));
    /// # anyhow::Ok(())
    /// ```
    pub fn create_custom_loss(
        &self,
        name: &str,
        inputs: &[CustomLossInput],
        graph: &LossGraph,
    ) -> Result<(LossFn, LossFnConfig)> {
        let session = self.session();
        let config = session.server.config.as_ref();
        if !config.is_some_and(|config| config.custom_loss_server_side) {
            return Err(Error::Config {
                what: "custom loss",
                reason: "this server evaluates none itself: use forward_backward_custom".into(),
            });
        }
        check(inputs)?;
        let request = CreateCustomLossRequest {
            session_id: session.id.clone(),
            custom_loss_seq_id: session.next_custom_loss(),
            name: name.to_owned(),
            inputs: inputs.to_vec(),
            graph: graph.clone(),
        };
        let submission = Submission::new("create_custom_loss", "CreateCustomLoss");
        let pending = session.submit(submission, &request)?;
        let created: CreateCustomLossResponse =
            ApiFuture::single(session.clone(), pending, |_, answer| Ok(answer)).result()?;
        let config = [("loss_id".to_owned(), created.loss_id.as_str().into())];
        Ok((LossFn::Other("custom".to_owned()), config.into()))
    }
}

/// What is known of the limits that servers have.
fn check(inputs: &[CustomLossInput]) -> Result<()> {
    let bad = |reason: String| Err(Error::Config { what: "inputs of the custom loss", reason });
    if !inputs.first().is_some_and(|first| first.name == "logprobs" && matches!(first.rank, 1 | 2))
    {
        return bad("the first must be `logprobs`, of rank 1 or 2".into());
    }
    if inputs.len() > MAX_INPUTS {
        return bad(format!("{} are more than {MAX_INPUTS}", inputs.len()));
    }
    for CustomLossInput { name, rank } in inputs {
        let is_first = |c: char| c.is_ascii_lowercase() || c == '_';
        let is_name = name.starts_with(is_first)
            && name.len() <= MAX_NAME
            && name.chars().all(|c| is_first(c) || c.is_ascii_digit());
        if !is_name {
            return bad(format!(
                "{name:?} is no name: at most {MAX_NAME} of a-z, 0-9 and _, not beginning with a digit"
            ));
        }
        if *rank > 2 {
            return bad(format!("`{name}` has rank {rank}, more than 2"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_that_no_server_takes_are_refused() {
        let told = |inputs: &[(&str, u32)]| {
            let inputs: Vec<CustomLossInput> = inputs
                .iter()
                .map(|&(name, rank)| CustomLossInput { name: name.into(), rank })
                .collect();
            check(&inputs).map_err(|error| error.to_string())
        };
        let lp = ("logprobs", 2);
        assert_eq!(told(&[lp, ("_old_2", 0), (&"a".repeat(64), 1)]), Ok(()));
        for (inputs, part) in [
            (vec![], "the first must be `logprobs`"),
            (vec![("weights", 1), lp], "the first must be `logprobs`"),
            (vec![("logprobs", 0)], "of rank 1 or 2"),
            (vec![lp; 17], "17 are more than 16"),
            (vec![lp, ("x", 3)], "`x` has rank 3"),
            (vec![lp, ("2x", 1)], "\"2x\" is no name"),
            (vec![lp, ("Old", 1)], "\"Old\" is no name"),
            (vec![lp, ("", 1)], "\"\" is no name"),
        ] {
            let error = told(&inputs).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
