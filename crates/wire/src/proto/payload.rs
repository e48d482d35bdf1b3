//! Numbers as little-endian bytes.

use std::sync::Arc;

use bytemuck::Pod;
use prost::bytes::Bytes;

use super::fault::{Fault, Result};

/// The bytes of shared numbers. On a little-endian machine they stay where they are.
pub fn bytes<T: Number>(values: &Arc<[T]>) -> Bytes {
    if cfg!(target_endian = "little") {
        Bytes::from_owner(Shared(values.clone()))
    } else {
        let mut bytes = Vec::with_capacity(size_of_val(&**values));
        extend(&mut bytes, values);
        bytes.into()
    }
}

/// Adds the bytes of `values`.
pub fn extend<T: Number>(bytes: &mut Vec<u8>, values: &[T]) {
    if cfg!(target_endian = "little") {
        bytes.extend_from_slice(bytemuck::cast_slice(values));
    } else {
        for value in values {
            value.put(bytes);
        }
    }
}

struct Shared<T>(Arc<[T]>);

impl<T: Pod> AsRef<[u8]> for Shared<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The numbers that `bytes` hold. `C` may be an `Arc` slice, which is then filled in place.
pub fn numbers<T: Number, C: FromIterator<T>>(bytes: &[u8]) -> Result<C> {
    T::read(bytes, |x| x)
}

/// A number with a little-endian form.
pub trait Number: Pod + Send + Sync {
    fn put(self, bytes: &mut Vec<u8>);

    /// The numbers that `bytes` hold, each passed through `convert`.
    fn read<U, C: FromIterator<U>>(bytes: &[u8], convert: impl Fn(Self) -> U) -> Result<C>;
}

macro_rules! number {
    ($($ty:ty)*) => {$(
        impl Number for $ty {
            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }

            fn read<U, C: FromIterator<U>>(bytes: &[u8], convert: impl Fn(Self) -> U) -> Result<C> {
                const SIZE: usize = size_of::<$ty>();
                let (items, rest) = bytes.as_chunks::<SIZE>();
                if !rest.is_empty() {
                    let reason = format!("{} bytes are no whole number of {SIZE}-byte values", bytes.len());
                    return Err(Fault::new(reason));
                }
                Ok(items.iter().map(|item| convert(<$ty>::from_le_bytes(*item))).collect())
            }
        }
    )*};
}
number!(u8 u16 u32 i32 i64 f32);

/// Token ids travel as `int32`.
pub fn token_bytes(tokens: &Arc<[u32]>) -> Result<Bytes> {
    check_tokens(tokens)?;
    Ok(bytes(tokens))
}

/// As [`token_bytes`], of ids that are not shared.
pub fn check_tokens(tokens: &[u32]) -> Result<()> {
    match first_too_large(tokens) {
        None => Ok(()),
        Some(i) => {
            Err(Fault::new(format!("token {i} is {}, and ids end at {}", tokens[i], i32::MAX)))
        }
    }
}

/// Token ids; a negative one is none.
pub fn tokens<C: FromIterator<u32> + AsRef<[u32]>>(bytes: &[u8]) -> Result<C> {
    let tokens: C = numbers(bytes)?;
    match first_too_large(tokens.as_ref()) {
        None => Ok(tokens),
        Some(i) => Err(Fault::new(format!(
            "token {i} is {}, which is no token id",
            tokens.as_ref()[i] as i32
        ))),
    }
}

/// Where an id has the sign bit set; all are looked at together first, which is several times
/// faster.
fn first_too_large(tokens: &[u32]) -> Option<usize> {
    match tokens.iter().fold(0, |bits, id| bits | id) >> 31 {
        0 => None,
        _ => tokens.iter().position(|id| id >> 31 == 1),
    }
}
