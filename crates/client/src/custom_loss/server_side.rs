//! Custom losses that the server evaluates.

use std::sync::Arc;

use tinsmith_wire::{CreateCustomLossRequest, CustomLossInput, LossFn, LossFnConfig, LossGraph};

use crate::{
    ApiFuture, Error, Result,
    protocol::{endpoints::CREATE_CUSTOM_LOSS, session::Session},
};

/// Most arguments of a loss.
const MAX_INPUTS: usize = 16;
/// Longest name of an argument.
const MAX_NAME: usize = 64;

/// Hands a loss to the server; what it is called in a pass.
pub(crate) fn create(
    session: &Arc<Session>,
    name: &str,
    inputs: &[CustomLossInput],
    graph: &LossGraph,
) -> Result<(LossFn, LossFnConfig)> {
    if !session.flavour.evaluates_losses {
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
    let pending = session.submit(&CREATE_CUSTOM_LOSS, None, &request)?;
    let created = ApiFuture::single(session.clone(), pending, |_, answer| Ok(answer)).result()?;
    let config = [("loss_id".to_owned(), created.loss_id.as_str().into())];
    Ok((LossFn::Other("custom".to_owned()), config.into()))
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
