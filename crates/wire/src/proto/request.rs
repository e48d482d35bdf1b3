//! Forward and forward_backward requests.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use super::{
    fault::{Fault, Result, Within, each},
    messages::{self, chunk::Chunk as WireChunk, loss_config_value::Value, provenance_span::Span},
    payload, sealed, tensor,
};
use crate::{
    Chunk, ConfigValue, Datum, ImageDimensions, LossFnConfig, Pass, PassRequest, Provenance,
    ProvenanceSource, ProvenanceSpan, TensorData,
};

impl sealed::Message for PassRequest<'_> {
    type Wire = messages::ForwardBackwardRequest;
    const NAME: &'static str = "PassRequest";

    fn to_wire(&self) -> Result<Self::Wire> {
        let config = self.loss_fn_config.iter().flatten();
        let number = |(name, value): (&String, &ConfigValue)| match value {
            ConfigValue::Number(x) => Some((name.clone(), *x)),
            _ => None,
        };
        Ok(messages::ForwardBackwardRequest {
            model_id: self.model_id.clone(),
            seq_id: int32(self.seq_id).within("seq_id")?,
            data: each("data", &*self.data, datum_to_wire)?,
            loss_fn: self.loss_fn.name().to_owned(),
            loss_fn_config: config.clone().filter_map(number).collect(),
            forward_only: self.pass == Pass::Forward,
            loss_fn_config_v2: config
                .map(|(name, value)| Ok((name.clone(), config_to_wire(name, value)?)))
                .collect::<Result<_>>()?,
        })
    }
}

impl sealed::Decode for PassRequest<'static> {
    fn from_wire(wire: Self::Wire) -> Result<Self> {
        let config = config_from_wire(wire.loss_fn_config, wire.loss_fn_config_v2)?;
        Ok(PassRequest {
            pass: match wire.forward_only {
                true => Pass::Forward,
                false => Pass::ForwardBackward,
            },
            data: Cow::Owned(each("data", wire.data, datum_from_wire)?),
            loss_fn: wire.loss_fn.into(),
            loss_fn_config: (!config.is_empty()).then_some(config),
            model_id: wire.model_id,
            seq_id: unsigned(wire.seq_id).within("seq_id")?,
        })
    }
}

fn config_to_wire(name: &str, value: &ConfigValue) -> Result<messages::LossConfigValue> {
    let value = match value {
        ConfigValue::Number(x) => Value::Number(*x),
        ConfigValue::Text(text) => Value::Text(text.clone()),
        ConfigValue::Flag(flag) => {
            let fault = Fault::new(format!("{flag}, and a setting is a number or a text here"));
            return Err(fault.within(format_args!("loss_fn_config.{name}")));
        }
    };
    Ok(messages::LossConfigValue { value: Some(value) })
}

/// The second map holds all, in a newer form, and counts where both have a name.
fn config_from_wire(
    numbers: BTreeMap<String, f64>,
    values: BTreeMap<String, messages::LossConfigValue>,
) -> Result<LossFnConfig> {
    let mut config: LossFnConfig = numbers.into_iter().map(|(name, x)| (name, x.into())).collect();
    for (name, value) in values {
        let value = match value.value {
            Some(Value::Number(x)) => x.into(),
            Some(Value::Text(text)) => ConfigValue::Text(text),
            None => {
                let fault = Fault::new("it is neither `number` nor `text`");
                return Err(fault.within(format_args!("loss_fn_config_v2.{name}")));
            }
        };
        config.insert(name, value);
    }
    Ok(config)
}

fn datum_to_wire(datum: &Datum) -> Result<messages::Datum> {
    let spans = |of: fn(&Provenance) -> &Vec<ProvenanceSpan>, field| {
        let spans = datum.provenance.as_deref().map(of).into_iter().flatten();
        each(field, spans, span_to_wire)
    };
    let inputs = datum.loss_fn_inputs.iter();
    Ok(messages::Datum {
        model_input: each("model_input", &*datum.model_input.chunks, chunk_to_wire)?,
        loss_fn_inputs: inputs
            .map(|(name, input)| (name.clone(), tensor::to_wire(input)))
            .collect(),
        model_input_spans: spans(|p| &p.model_input, "model_input_spans")?,
        loss_fn_input_spans: spans(|p| &p.loss_fn_inputs, "loss_fn_input_spans")?,
    })
}

fn datum_from_wire(wire: messages::Datum) -> Result<Datum> {
    let input = |(name, input): (String, messages::Tensor)| {
        let input = tensor::from_wire(input).within(format_args!("loss_fn_inputs.{name}"))?;
        Ok((name, input))
    };
    let inputs: Result<BTreeMap<String, TensorData>> =
        wire.loss_fn_inputs.into_iter().map(input).collect();
    let provenance = Provenance {
        model_input: each("model_input_spans", wire.model_input_spans, span_from_wire)?,
        loss_fn_inputs: each("loss_fn_input_spans", wire.loss_fn_input_spans, span_from_wire)?,
    };
    Ok(Datum {
        model_input: each("model_input", wire.model_input, chunk_from_wire)?.into_iter().collect(),
        loss_fn_inputs: inputs?,
        provenance: (provenance != Provenance::default()).then(|| Arc::new(provenance)),
    })
}

fn chunk_to_wire(chunk: &Chunk) -> Result<messages::Chunk> {
    let chunk = match chunk {
        Chunk::EncodedText { tokens } => WireChunk::EncodedText(messages::EncodedTextChunk {
            tokens: payload::token_bytes(tokens).within("encoded_text.tokens")?,
        }),
        Chunk::Image { data, format, expected_tokens, override_dimensions } => {
            WireChunk::Image(messages::ImageChunk {
                data: payload::bytes(data),
                format: format.clone(),
                expected_tokens: expected_tokens
                    .map(|n| int32(n.into()))
                    .transpose()
                    .within("image.expected_tokens")?,
                override_dimensions: override_dimensions.map(|size| messages::ImageDimensions {
                    width: size.width,
                    height: size.height,
                }),
            })
        }
        Chunk::Dmel { dmel } => WireChunk::Dmel(messages::DmelChunk { dmel: payload::bytes(dmel) }),
        Chunk::Other { kind, .. } => {
            return Err(Fault::new(format!("a chunk of the unknown type `{kind}`")));
        }
        Chunk::ImageAssetPointer { .. } => {
            return Err(Fault::new(
                "an image_asset_pointer has no protobuf form; send the image itself",
            ));
        }
    };
    Ok(messages::Chunk { chunk: Some(chunk) })
}

fn chunk_from_wire(wire: messages::Chunk) -> Result<Chunk> {
    match wire.chunk {
        Some(WireChunk::EncodedText(text)) => Ok(Chunk::EncodedText {
            tokens: payload::tokens(&text.tokens).within("encoded_text.tokens")?,
        }),
        Some(WireChunk::Image(image)) => Ok(Chunk::Image {
            data: image.data.as_ref().into(),
            format: image.format,
            expected_tokens: image
                .expected_tokens
                .map(unsigned)
                .transpose()
                .within("image.expected_tokens")?,
            override_dimensions: image
                .override_dimensions
                .map(|size| ImageDimensions { width: size.width, height: size.height }),
        }),
        Some(WireChunk::Dmel(sound)) => Ok(Chunk::Dmel { dmel: sound.dmel.as_ref().into() }),
        None => Err(Fault::new("it is none of `encoded_text`, `image` and `dmel`")),
    }
}

fn span_to_wire(span: &ProvenanceSpan) -> Result<messages::ProvenanceSpan> {
    let int64 = |n: u64| i64::try_from(n).map_err(|_| Fault::new(format!("{n} is too large")));
    let fields = messages::Span {
        sequence_id: span.sequence_id.clone(),
        offset: int64(span.offset).within("offset")?,
        length: int64(span.length).within("length")?,
    };
    let span = match span.source {
        ProvenanceSource::Prompt => Span::PromptTokens(fields),
        ProvenanceSource::Sampled => Span::SampledTokens(fields),
    };
    Ok(messages::ProvenanceSpan { span: Some(span) })
}

fn span_from_wire(wire: messages::ProvenanceSpan) -> Result<ProvenanceSpan> {
    let (source, fields) = match wire.span {
        Some(Span::PromptTokens(fields)) => (ProvenanceSource::Prompt, fields),
        Some(Span::SampledTokens(fields)) => (ProvenanceSource::Sampled, fields),
        None => {
            return Err(Fault::new("it is neither `prompt_tokens` nor `sampled_tokens`"));
        }
    };
    Ok(ProvenanceSpan {
        source,
        sequence_id: fields.sequence_id,
        offset: unsigned(fields.offset).within("offset")?,
        length: unsigned(fields.length).within("length")?,
    })
}

fn int32(n: u64) -> Result<i32> {
    i32::try_from(n).map_err(|_| Fault::new(format!("{n} is above {}", i32::MAX)))
}

pub fn unsigned<I: Copy + std::fmt::Display, U: TryFrom<I>>(n: I) -> Result<U> {
    U::try_from(n).map_err(|_| Fault::new(format!("{n} is negative")))
}
