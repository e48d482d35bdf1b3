//! The two passes of a custom loss, as the client makes them, against a server that gives the
//! case's logprobs.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};
use tinsmith_client::{Batch, Dialect, Loss};
use tinsmith_grad::{Device, Ragged, Var};
use tinsmith_wire::{
    Data, Datum, ForwardBackwardOutput, LossFn, ModelInput, Pass, PassRequest, TensorData,
};

use super::{
    combine, read,
    server::{Request, Server},
    spec::{Tensor, Tensors, tensors},
};
use crate::vectors::number::Number;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    loss: String,
    datums: Vec<DatumSpec>,
    expected_forward_inputs: Vec<Tensors>,
    forward_logprobs: Vec<Tensor>,
    expected_backward_inputs: Vec<Tensors>,
    loss_value: Number,
    user_metrics: BTreeMap<String, f64>,
    backward_metrics: BTreeMap<String, Number>,
    expected_metrics: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DatumSpec {
    model_input: Vec<u32>,
    loss_fn_inputs: Tensors,
}

impl DatumSpec {
    fn build(&self) -> Result<Datum> {
        Ok(Datum {
            model_input: ModelInput::from_tokens(self.model_input.as_slice()),
            loss_fn_inputs: tensors(&self.loss_fn_inputs)?,
            ..Datum::default()
        })
    }
}

pub fn check(case: &Value, _: &Path) -> Result<()> {
    let case: Case = read(case)?;
    let data = case.datums.iter().map(DatumSpec::build).collect::<Result<Vec<_>>>()?;
    let logprobs = case.forward_logprobs.iter().map(Tensor::build).collect::<Result<Vec<_>>>()?;
    let metrics = case.backward_metrics.iter().map(|(name, x)| (name.clone(), x.0));
    let answer = ForwardBackwardOutput {
        loss_fn_output_type: "ArrayRecord".into(),
        loss_fn_outputs: logprobs
            .iter()
            .map(|logprobs| [("logprobs".to_owned(), logprobs.clone())].into())
            .collect(),
        metrics: metrics.collect(),
    };
    for dialect in [Dialect::Json, Dialect::Protobuf] {
        run(&case, &data, &answer, dialect).with_context(|| format!("{dialect:?}"))?;
    }
    Ok(())
}

fn run(
    case: &Case,
    data: &[Datum],
    answer: &ForwardBackwardOutput,
    dialect: Dialect,
) -> Result<()> {
    let answer = answer.clone();
    let bare = ForwardBackwardOutput { metrics: Default::default(), ..answer.clone() };
    let server = Server::start(move |request: &Request| {
        Ok(match request.pass()?.pass {
            Pass::Forward => bare.clone(),
            Pass::ForwardBackward => answer.clone(),
        })
    })?;

    let step = server.training(dialect)?.forward_backward_custom(data, |batch| {
        let loss = loss(case, batch)?;
        Ok(case.user_metrics.iter().fold(loss, |loss, (name, &x)| loss.metric(name, x)))
    })?;
    let output = step.result()?.output;

    let passes = ["forward", "forward_backward"].iter().flat_map(|call| server.requests(call));
    let passes = passes.map(|request| request.pass()).collect::<Result<Vec<_>>>()?;
    let [first, second] = passes.as_slice() else { bail!("{} passes, want 2", passes.len()) };
    sent(first, data, &case.expected_forward_inputs).context("the first pass")?;
    sent(second, data, &case.expected_backward_inputs).context("the second pass")?;
    ensure!(
        first.pass == Pass::Forward && second.pass == Pass::ForwardBackward,
        "the passes are in another order"
    );

    let mut expected = case.expected_metrics.clone();
    let value = number(expected.remove("loss:sum"))?;
    near("loss:sum", &[output.metrics["loss:sum"]], &[value])?;
    near("the loss", &[value], &[case.loss_value.0])?;
    let mut others = output.metrics.clone();
    others.remove("loss:sum");
    combine::metrics(&others, &expected)
}

fn number(value: Option<Value>) -> Result<f64> {
    let value = value.context("no `loss:sum` among the expected metrics")?;
    Ok(Number::deserialize(value)?.0)
}

/// The loss that the case gives in words. One that is not known here is replaced by its tangent:
/// the linear function with the same value and the same gradient.
fn loss(case: &Case, batch: &Batch) -> Result<Loss> {
    let lp = batch.logprobs();
    let words = case.loss.as_str();
    Ok(if words.starts_with("sum over datums of sum(logprob^2)") {
        Loss::new(lp.square().sum())
    } else if words.starts_with("-mean(logprob * weights of the datum)") {
        Loss::new(-(&lp * batch.input("weights")?).mean())
    } else if words.starts_with("-sum(softmax(teacher, last axis) * logprobs)") {
        let teacher = batch.input("teacher")?.map(|t| t.softmax(-1));
        Loss::new(-(teacher * &lp).sum())
    } else if words.starts_with("sum of the first column") {
        Loss::new(lp.values().narrow(1, 0, 1).sum())
    } else if words.starts_with("sum(clamp(exp(logprob - old), 0.05, 1.0))") {
        Loss::new((&lp - batch.input("old")?).exp().clamp(0.05, 1.0).sum())
    } else {
        tangent(case, &lp)?
    })
}

fn tangent(case: &Case, lp: &Ragged) -> Result<Loss> {
    let (mut offset, mut slope) = (case.loss_value.0, Vec::new());
    for (inputs, logprobs) in case.expected_backward_inputs.iter().zip(&case.forward_logprobs) {
        let weights = inputs.get("weights").context("no expected weights")?;
        let (weights, at) = (weights.build()?.to_dense()?, logprobs.build()?);
        let (Some(weights), Some(at)) = (weights.as_f32(), at.as_f32()) else {
            bail!("weights and logprobs must be float32")
        };
        let pairs = weights.iter().zip(at);
        offset += pairs.map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
        slope.extend(weights.iter().map(|w| -w));
    }
    let slope = Var::from_vec(slope, lp.values().shape(), &Device::Cpu);
    Ok(Loss::new((lp.values() * slope).sum() + offset))
}

/// The request carries the data in order, with these inputs and no others.
fn sent(request: &PassRequest, data: &[Datum], expected: &[Tensors]) -> Result<()> {
    ensure!(request.loss_fn == LossFn::CrossEntropy, "the loss is {:?}", request.loss_fn);
    ensure!(
        request.data.len() == data.len() && data.len() == expected.len(),
        "{} data, want {}",
        request.data.len(),
        expected.len()
    );
    for (i, (sent, expected)) in request.data.iter().zip(expected).enumerate() {
        ensure!(sent.model_input == data[i].model_input, "datum {i} has another input");
        let (found, wanted) = (&sent.loss_fn_inputs, tensors(expected)?);
        ensure!(
            found.keys().eq(wanted.keys()),
            "datum {i} has the inputs {:?}, want {:?}",
            found.keys(),
            wanted.keys()
        );
        for (name, wanted) in &wanted {
            let what = format!("{name} of datum {i}");
            same(&what, &found[name], wanted)?;
        }
    }
    Ok(())
}

/// Sparse or dense, whichever each side likes.
fn same(what: &str, got: &TensorData, want: &TensorData) -> Result<()> {
    let (got, want) = (got.to_dense()?, want.to_dense()?);
    ensure!(
        got.shape() == want.shape(),
        "{what}: shape {:?}, want {:?}",
        got.shape(),
        want.shape()
    );
    match (got.data(), want.data()) {
        (Data::F32(got), Data::F32(want)) => {
            let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            near(what, &wide(got), &wide(want))
        }
        (got, want) => {
            ensure!(got == want, "{what}: got {got:?}, want {want:?}");
            Ok(())
        }
    }
}

/// Gradients are torch's in float32.
fn near(what: &str, got: &[f64], want: &[f64]) -> Result<()> {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let same = got == want
            || got.is_nan() && want.is_nan()
            || (got - want).abs() <= 1e-6 * want.abs().max(1e-6);
        ensure!(same, "{what}[{i}]: got {got}, want {want}");
    }
    Ok(())
}
