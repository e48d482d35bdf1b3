//! Results of a batch that went in several requests, put together.

use tinsmith_wire::{ForwardBackwardOutput, Metrics};

/// Outputs in order; metrics as the suffix of their names says (`name:sum`, `:mean`, ..), of those that every part has.
pub(crate) fn combine(parts: Vec<ForwardBackwardOutput>) -> ForwardBackwardOutput {
    let metrics = combine_metrics(&parts);
    let loss_fn_output_type = parts
        .first()
        .map(|part| part.loss_fn_output_type.clone())
        .unwrap_or_default();
    ForwardBackwardOutput {
        loss_fn_output_type,
        loss_fn_outputs: parts
            .into_iter()
            .flat_map(|part| part.loss_fn_outputs)
            .collect(),
        metrics,
    }
}

fn combine_metrics(parts: &[ForwardBackwardOutput]) -> Metrics {
    let mut combined = Metrics::default();
    let Some(first) = parts.first() else {
        return combined;
    };
    let weights: Vec<f64> = parts
        .iter()
        .map(|part| part.loss_fn_outputs.len() as f64)
        .collect();
    for (name, only) in first.metrics.iter() {
        let Some(values) = parts
            .iter()
            .map(|part| part.metrics.get(name))
            .collect::<Option<Vec<f64>>>()
        else {
            continue;
        };
        let suffix = name.rsplit_once(':').map_or("", |(_, suffix)| suffix);
        match suffix {
            "sum" => drop(combined.insert(name, values.iter().sum())),
            "mean" => drop(combined.insert(name, mean(&values, &weights))),
            "min" => drop(combined.insert(name, extreme(&values, f64::min))),
            "max" => drop(combined.insert(name, extreme(&values, f64::max))),
            "slack" => {
                drop(combined.insert(name, extreme(&values, f64::max) - mean(&values, &weights)))
            }
            "unique" => {
                for (i, &value) in values.iter().enumerate() {
                    let numbered = if i == 0 {
                        name.to_owned()
                    } else {
                        format!("{name}_{i}")
                    };
                    combined.insert(numbered, value);
                }
            }
            "hash2" => {
                let hash = |part: &ForwardBackwardOutput| wrapped(&part.metrics, name);
                if let Some(hashes) = parts.iter().map(hash).collect::<Option<Vec<u64>>>() {
                    combined.insert_u64(name, hashes.into_iter().fold(0, u64::wrapping_add));
                }
            }
            _ if parts.len() == 1 => drop(combined.insert(name, only)),
            _ => {}
        }
    }
    combined
}

fn mean(values: &[f64], weights: &[f64]) -> f64 {
    let total: f64 = weights.iter().sum();
    if total == 0.0 {
        return values.iter().sum::<f64>() / values.len() as f64;
    }
    values.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>() / total
}

/// The least or greatest; NaN if there is one, which `f64::min` alone would pass over.
fn extreme(values: &[f64], pick: fn(f64, f64) -> f64) -> f64 {
    if values.iter().any(|x| x.is_nan()) {
        return f64::NAN;
    }
    values.iter().copied().reduce(pick).unwrap_or(f64::NAN)
}

/// The integer part modulo 2^64; nothing for NaN and infinities.
fn wrapped(metrics: &Metrics, name: &str) -> Option<u64> {
    if let Some(exact) = metrics.exact_u64(name) {
        return Some(exact);
    }
    let x = metrics.get(name).filter(|x| x.is_finite())?.trunc();
    // Both 2^64 and the remainder are exact in f64, and a remainder of 2^64 by rounding saturates only for x in (-2^11, 0).
    let size = (x.abs() % 2f64.powi(64)) as u64;
    Some(if x < 0.0 { size.wrapping_neg() } else { size })
}
