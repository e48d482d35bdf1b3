//! What is done with the server, and what should come of it.

use anyhow::{Context, Result};
use tinsmith_client::{
    AdamParams, Datum, Dialect, Error, LoraConfig, LossFn, ModelInput, RequestOrder,
    SamplingParams, ServiceClient, Support, TensorData, TrainingClient, Warning,
};

use super::MAX_RANK;
use crate::interop::checks::{Check, guarded};
use crate::interop::client::{
    apart, custom_step, datum, logprobs, logprobs_of, squared_nll, tokens,
};
use crate::interop::tiny_model;

/// Trained on and sampled from: a prompt, and what should follow.
const PROMPT: &str = "Q: one\nA:";
const ANSWER: &str = " uno";

/// What the untrained model gives the first targets of both together, computed by another program
/// in PyTorch.
const UNTRAINED: [f32; 4] = [-7.03209, -7.06991, -6.46605, -4.58744];

type Scenario = fn(&ServiceClient, &TrainingClient) -> Result<Vec<Check>>;

pub fn run(url: &str) -> Result<Vec<Check>> {
    let service = ServiceClient::builder().base_url(url).connect()?;
    let mut checks = guarded("capabilities", || capabilities(&service));
    let training = service
        .create_lora_training_client(tiny_model::NAME, &LoraConfig::rank(8).seed(1))
        .context("creating a model")?;
    let scenarios: [(&str, Scenario); 8] = [
        ("the new model", model),
        ("custom loss", custom_loss),
        ("cross entropy", cross_entropy),
        ("checkpoints", checkpoints),
        ("sampling", sampling),
        ("listings", listings),
        ("refusals", refusals),
        ("unload", unload),
    ];
    for (name, scenario) in scenarios {
        checks.extend(guarded(name, || scenario(&service, &training)));
    }
    Ok(checks)
}

fn adam() -> AdamParams {
    AdamParams::default().learning_rate(1e-2)
}

fn capabilities(service: &ServiceClient) -> Result<Vec<Check>> {
    let found = service.capabilities()?;
    let models: Vec<&str> = found.models.iter().map(|it| it.model_name.as_str()).collect();
    Ok(vec![
        Check::new(
            "spoken with in JSON, as it has no client/config",
            found.dialect == Dialect::Json && found.client_config.is_none(),
            format!("{:?}", found.dialect),
        ),
        Check::new(
            "it is well and offers the model",
            found.health == Support::Yes && models == [tiny_model::NAME],
            models.join(", "),
        ),
    ])
}

fn model(service: &ServiceClient, training: &TrainingClient) -> Result<Vec<Check>> {
    let info = training.info()?;
    let text = datum(&format!("{PROMPT}{ANSWER}"))?;
    let found = logprobs(training, &[text])?;
    let first = vec![found[0][..UNTRAINED.len()].to_vec()];
    let apart = apart(&first, &vec![UNTRAINED.to_vec()]);
    Ok(vec![
        Check::new(
            "recognized as one that orders requests by arrival",
            service.request_order() == RequestOrder::ByArrival,
            format!("{:?}", service.request_order()),
        ),
        Check::new(
            "get_info knows the model",
            info.model_data.model_name.as_deref() == Some(tiny_model::NAME),
            format!("{:?}, rank {:?}", info.model_data.model_name, info.lora_rank),
        ),
        Check::new(
            "forward gives PyTorch's logprobs to 1e-4",
            apart <= 1e-4,
            format!("{:?}, apart {apart:.1e}", first[0]),
        ),
    ])
}

fn custom_loss(_: &ServiceClient, training: &TrainingClient) -> Result<Vec<Check>> {
    let data = [datum("pack my box")?, datum("the quick brown fox")?];
    let reports = (0..5)
        .map(|_| custom_step(training, &data, &adam(), squared_nll))
        .collect::<Result<Vec<_>>>()?;
    let losses: Vec<f64> = reports.iter().map(|report| report.loss).collect();
    let first = &reports[0];
    let surrogate = first.surrogate.context("the server told no loss")?;
    let drift = first.drift.context("the second pass gave no logprobs")?;
    let rescaled = first.warnings.iter().find_map(|warning| match warning {
        Warning::Rescaled(rescaling) => Some(rescaling.sequences),
        _ => None,
    });
    Ok(vec![
        Check::new(
            "custom loss (squared NLL): five steps, and it falls",
            losses.is_sorted_by(|a, b| a > b),
            format!("{losses:.3?}"),
        ),
        Check::new(
            "custom loss: both passes see the same model",
            drift.max_abs <= 1e-5,
            format!("apart {:.1e}", drift.max_abs),
        ),
        Check::new(
            "custom loss: the server's losses are those of the weights sent",
            surrogate.agrees,
            format!("{:.4} and {:.4}", surrogate.server, surrogate.expected),
        ),
        Check::new(
            "custom loss: warned that its gradient is not",
            rescaled == Some(data.len()),
            format!("{:?}", first.warnings),
        ),
    ])
}

fn cross_entropy(_: &ServiceClient, training: &TrainingClient) -> Result<Vec<Check>> {
    let data = [datum(&format!("{PROMPT}{ANSWER}\n"))?];
    let mut losses = Vec::new();
    for _ in 0..20 {
        let pass = training.forward_backward(&data, LossFn::CrossEntropy, None)?;
        let optim = training.optim_step(&adam())?;
        let logprobs = logprobs_of(&pass.result()?)?;
        losses.push(-logprobs.iter().flatten().sum::<f32>());
        optim.result()?;
    }
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    Ok(vec![Check::new(
        "cross entropy: 20 steps bring it below a tenth",
        last < 0.1 * first,
        format!("{first:.2} -> {last:.2}"),
    )])
}

fn checkpoints(service: &ServiceClient, training: &TrainingClient) -> Result<Vec<Check>> {
    let data = [datum("five dozen liquor jugs")?];
    let before = logprobs(training, &data)?;
    let path = training.save_state("first")?.result()?.path;
    let step = training.forward_backward(&data, LossFn::CrossEntropy, None)?;
    let optim = training.optim_step(&adam())?;
    step.result()?;
    optim.result()?;
    let moved = apart(&logprobs(training, &data)?, &before);
    training.load_state(&path)?.result()?;
    let back = apart(&logprobs(training, &data)?, &before);
    let twin = service.create_training_client_from_state(&path)?;
    let twins = apart(&logprobs(&twin, &data)?, &before);
    twin.unload()?.result()?;
    Ok(vec![
        Check::new(
            "save, step, load: the logprobs are back",
            back <= 1e-5 && moved > 1e-2,
            format!("{path}: moved {moved:.3}, back to {back:.1e}"),
        ),
        Check::new(
            "a new model made of the checkpoint has them too",
            twins <= 1e-5,
            format!("apart {twins:.1e}"),
        ),
    ])
}

fn sampling(service: &ServiceClient, training: &TrainingClient) -> Result<Vec<Check>> {
    let prompt = ModelInput::from_tokens(tokens(PROMPT));
    let greedy =
        SamplingParams { temperature: 0.0, ..SamplingParams::max_tokens(ANSWER.len() as u32) };
    let passing = training.save_weights_for_sampler(None)?.result()?;
    let answer = passing.sample(&prompt, 2, &greedy)?.result()?;
    let texts: Vec<String> = answer
        .sequences
        .iter()
        .map(|it| it.tokens.iter().map(|&token| char::from(token as u8)).collect())
        .collect();
    let counts: Vec<Option<usize>> = answer
        .sequences
        .iter()
        .map(|it| it.logprobs.as_ref().map(|logprobs| logprobs.len()))
        .collect();

    let kept = training.save_weights_for_sampler(Some("kept"))?.result()?;
    let path = kept.path().context("a named sampler has no path")?;
    let again = service.create_sampling_client(path)?;
    let found = again.compute_logprobs(&prompt)?.result()?;
    let expected = logprobs(training, &[datum(PROMPT)?])?;
    let rest = found.iter().skip(1).copied().collect::<Option<Vec<f32>>>();
    let apart = apart(&vec![rest.context("a token has no logprob")?], &expected);
    Ok(vec![
        Check::new(
            "greedy samples repeat what was learnt",
            texts == [ANSWER, ANSWER],
            format!("{texts:?}"),
        ),
        Check::new(
            "each token sampled has a logprob",
            counts == [Some(ANSWER.len()); 2],
            format!("{counts:?}"),
        ),
        Check::new(
            "a sampler made of a path: compute_logprobs agrees with forward to 1e-4",
            apart <= 1e-4,
            format!("{path}: apart {apart:.1e}"),
        ),
    ])
}

fn listings(service: &ServiceClient, training: &TrainingClient) -> Result<Vec<Check>> {
    let rest = service.rest();
    let runs = rest.training_runs()?;
    let listed = runs.iter().any(|run| run.training_run_id == training.model_id());
    let checkpoints = rest.checkpoints(training.model_id())?;
    let names: Vec<&str> = checkpoints.iter().map(|it| it.checkpoint_id.as_str()).collect();
    let saved = |name: &str| names.iter().any(|it| it.ends_with(name));
    Ok(vec![
        Check::new("the run is listed", listed, format!("{} runs", runs.len())),
        Check::new("its checkpoints are listed", saved("first") && saved("kept"), names.join(", ")),
    ])
}

fn refusals(service: &ServiceClient, training: &TrainingClient) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let mut refused = |name: &str, words: &str, error: Option<Error>| {
        let said = error.map_or("no error".to_owned(), |error| error.to_string());
        checks.push(Check::new(name, said.contains(words), said));
    };
    let too_large = LoraConfig::rank(MAX_RANK + 1);
    let created = service.create_lora_training_client(tiny_model::NAME, &too_large);
    let words = "LoRA rank 17 must be between 1 and 16";
    refused("a rank too large: the server's words", words, created.err());

    let missing = format!("tinker://{}/weights/none", training.model_id());
    let loaded = training.load_state(&missing).and_then(|future| future.result());
    refused("a checkpoint it does not have: the server's words", "not found", loaded.err());

    let rows = TensorData::from_rows(&[[1i64, 2], [3, 4]])?;
    let wide = Datum::new(ModelInput::from_tokens([1, 2])).with("target_tokens", rows);
    let sent = training.forward(&[wide], LossFn::CrossEntropy, None);
    refused("targets of rank 2, which it would flatten: not sent", "SkyRL-tx", sent.err());

    let hinge = LossFn::Other("hinge".to_owned());
    let sent = training.forward(&[datum(PROMPT)?], hinge, None);
    let words = "Input should be 'cross_entropy'";
    refused("a loss it does not have: the server's words", words, sent.err());
    Ok(checks)
}

fn unload(_: &ServiceClient, training: &TrainingClient) -> Result<Vec<Check>> {
    training.clone().unload()?.result()?;
    let gone = training
        .forward(&[datum(PROMPT)?], LossFn::CrossEntropy, None)
        .and_then(|future| future.result());
    let said = gone.err().map(|error| error.to_string());
    Ok(vec![Check::new(
        "after unload the model is gone",
        said.as_ref().is_some_and(|said| said.contains("not loaded")),
        said.unwrap_or_default(),
    )])
}
