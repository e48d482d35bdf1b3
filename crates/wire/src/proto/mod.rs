//! The protobuf codec of the messages that have a protobuf form. [`json`](crate::json) has all the
//! others.
//!
//! Requests are written from where their tokens and tensors are, without a copy in between.
//! Decoding takes memory in proportion to the body, whatever sizes the body claims.

use prost::Message as _;

use crate::{Error, Result};

mod fault;
mod messages;
mod output;
mod payload;
mod request;
mod sample;
mod tensor;

use fault::Fault;

/// What can be written as protobuf: [`PassRequest`](crate::PassRequest),
/// [`ForwardBackwardOutput`](crate::ForwardBackwardOutput) and
/// [`SampleResponse`](crate::SampleResponse).
pub trait Message: sealed::Message {}

impl<T: sealed::Message> Message for T {}

/// What can be read from protobuf: the same, owning what they hold.
pub trait Decode: sealed::Decode {}

impl<T: sealed::Decode> Decode for T {}

mod sealed {
    use super::fault::Result;

    pub trait Message: Sized {
        type Wire: prost::Message + Default;
        const NAME: &'static str;
        fn to_wire(&self) -> Result<Self::Wire>;
    }

    pub trait Decode: Message {
        fn from_wire(wire: Self::Wire) -> Result<Self>;
    }
}

/// Writes the body of an `application/x-protobuf` request or reply.
///
/// # Errors
/// [`Error::Encode`] with the path to the value, for what protobuf cannot carry: token ids and
/// sequence ids from 2^31 on, image pointers, flags among the settings of a loss, sparse outputs.
///
/// ```
/// use tinsmith_wire::{ForwardBackwardOutput, proto};
/// let output = ForwardBackwardOutput { metrics: [("loss:sum", 1.5)].into_iter().collect(), ..Default::default() };
/// let body = proto::to_vec(&output)?;
/// assert_eq!(proto::from_vec::<ForwardBackwardOutput>(body)?.metrics["loss:sum"], 1.5);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
pub fn to_vec<T: Message>(value: &T) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    append(&mut body, value)?;
    Ok(body)
}

/// As [`to_vec`], at the end of a buffer that may be used again for the next body: taking fresh
/// memory of a few megabytes costs about as much as filling it.
///
/// # Errors
/// As [`to_vec`]; then nothing is added.
///
/// ```
/// use tinsmith_wire::{ForwardBackwardOutput, proto};
/// let mut body = Vec::new();
/// for _ in 0..2 {
///     body.clear();
///     proto::append(&mut body, &ForwardBackwardOutput::default())?;
/// }
/// assert_eq!(body, proto::to_vec(&ForwardBackwardOutput::default())?);
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
pub fn append<T: Message>(body: &mut Vec<u8>, value: &T) -> Result<()> {
    let wire = value.to_wire().map_err(|Fault { path, reason }| Error::Encode {
        what: T::NAME,
        format: "protobuf",
        path,
        reason,
    })?;
    body.reserve_exact(wire.encoded_len());
    wire.encode_raw(body);
    Ok(())
}

/// Reads such a body. Unknown fields are ignored; narrow dtypes are widened to `float32` and
/// `int64`.
///
/// # Errors
/// [`Error::Decode`] with the path to the value.
///
/// ```
/// use tinsmith_wire::{SampleResponse, proto};
/// // Field 1, a sequence of 2 bytes: its field 1, the stop reason, is 7.
/// let error = proto::from_vec::<SampleResponse>(vec![0x0a, 2, 0x08, 7]).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "cannot read SampleResponse from protobuf: at `sequences[0].stop_reason`: 7 is no stop reason"
/// );
/// ```
pub fn from_vec<T: Decode>(body: Vec<u8>) -> Result<T> {
    let fail = |path, reason| Error::Decode { what: T::NAME, format: "protobuf", path, reason };
    // From `Bytes`, prost hands out payloads without copying them.
    let wire = T::Wire::decode(prost::bytes::Bytes::from(body))
        .map_err(|error| fail(".".to_owned(), error.to_string()))?;
    T::from_wire(wire).map_err(|Fault { path, reason }| fail(path, reason))
}
