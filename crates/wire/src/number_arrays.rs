//! serde_json's compact form, with arrays of numbers written several times as fast.

use std::io::{Result, Write};

use serde_json::ser::{CompactFormatter, Formatter};

/// Gathers the numbers of an array, each with the comma behind it, and writes them together: on
/// their own, two calls for each of millions of numbers cost more than their digits. Empty but
/// within an array of numbers.
pub(crate) struct NumberArrays {
    text: [u8; CAPACITY],
    len: usize,
    /// Whether what comes next is an element of an array.
    is_element: bool,
    /// Whether `text` ends in the comma of the last number, which the last of all must not have.
    has_comma: bool,
}

const CAPACITY: usize = 1024;
/// More than a number and its comma take.
const ROOM: usize = 64;

/// The digits of 0 to 999, the first one lowest, as numbers.
static DIGITS: [u32; 1024] = {
    let mut digits = [0; 1024];
    let mut i = 0;
    while i < 1000 {
        digits[i as usize] = (i / 100) | ((i / 10 % 10) << 8) | ((i % 10) << 16);
        i += 1;
    }
    digits
};
const SHORT: u32 = 1_000_000;

/// The digits of a number below [`SHORT`] as ASCII, the first one lowest, and how many there are.
#[inline]
fn short(x: u32) -> (u64, usize) {
    let three = |x: u32| u64::from(DIGITS[(x & 1023) as usize]);
    let six = three(x / 1000) | (three(x % 1000) << 24);
    // The last digit counts even if it is 0.
    let zeros = (six | (1 << 40)).trailing_zeros() as usize / 8;
    ((six | 0x3030_3030_3030) >> (8 * zeros), 6 - zeros)
}

impl NumberArrays {
    pub fn new() -> Self {
        NumberArrays { text: [0; CAPACITY], len: 0, is_element: false, has_comma: false }
    }

    /// Writes what has been gathered.
    #[inline]
    fn flush<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.is_element = false;
        if self.len > 0 {
            writer.write_all(&self.text[..self.len])?;
            self.len = 0;
        }
        Ok(())
    }

    /// Adds the digits of a number, if it is an element; else writes them.
    #[inline]
    fn number<W: ?Sized + Write>(&mut self, writer: &mut W, digits: &[u8]) -> Result<()> {
        if !self.is_element {
            return writer.write_all(digits);
        }
        let end = self.len + digits.len();
        self.text[self.len..end].copy_from_slice(digits);
        self.text[end] = b',';
        self.is_added(end + 1);
        Ok(())
    }

    /// Adds an element that is a natural number below [`SHORT`].
    #[inline]
    fn short(&mut self, x: u32) {
        let (digits, n) = short(x);
        let text = digits | (u64::from(b',') << (8 * n));
        self.text[self.len..self.len + 8].copy_from_slice(&text.to_le_bytes());
        self.is_added(self.len + n + 1);
    }

    /// As [`short`](Self::short), in the form of a float.
    #[inline]
    fn short_float(&mut self, x: u32) {
        let (digits, n) = short(x);
        let end = self.len + n;
        self.text[self.len..self.len + 8].copy_from_slice(&digits.to_le_bytes());
        self.text[end..end + 3].copy_from_slice(b".0,");
        self.is_added(end + 3);
    }

    #[inline]
    fn is_added(&mut self, len: usize) {
        self.len = len;
        self.is_element = false;
        self.has_comma = true;
    }
}

/// Methods before which everything gathered is written.
macro_rules! compact {
    ($($method:ident($($argument:ident: $ty:ty)?);)*) => {$(
        #[inline]
        fn $method<W: ?Sized + Write>(&mut self, writer: &mut W, $($argument: $ty)?) -> Result<()> {
            self.flush(writer)?;
            CompactFormatter.$method(writer, $($argument)?)
        }
    )*};
}

/// Integers as itoa has them, but for short ones in arrays.
macro_rules! integers {
    ($($method:ident($ty:ty);)*) => {$(
        #[inline]
        fn $method<W: ?Sized + Write>(&mut self, writer: &mut W, x: $ty) -> Result<()> {
            match u32::try_from(x) {
                Ok(x) if x < SHORT && self.is_element => {
                    self.short(x);
                    Ok(())
                }
                _ => self.number(writer, itoa::Buffer::new().format(x).as_bytes()),
            }
        }
    )*};
}

impl Formatter for NumberArrays {
    #[inline]
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        if self.len > CAPACITY - ROOM {
            self.flush(writer)?;
        }
        if !first && !self.has_comma {
            writer.write_all(b",")?;
        }
        self.has_comma = false;
        self.is_element = true;
        Ok(())
    }

    #[inline]
    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        if std::mem::take(&mut self.has_comma) {
            self.len -= 1;
        }
        self.flush(writer)?;
        writer.write_all(b"]")
    }

    #[inline]
    fn write_f32<W: ?Sized + Write>(&mut self, writer: &mut W, x: f32) -> Result<()> {
        if self.is_element && (x == 1.0 || x.to_bits() == 0) {
            self.short_float(x as u32);
            return Ok(());
        }
        digits_of_float(self, writer, x)
    }

    integers! {
        write_i8(i8);
        write_i16(i16);
        write_i32(i32);
        write_i64(i64);
        write_i128(i128);
        write_u8(u8);
        write_u16(u16);
        write_u32(u32);
        write_u64(u64);
        write_u128(u128);
    }

    compact! {
        write_null();
        write_bool(value: bool);
        write_f64(value: f64);
        write_number_str(value: &str);
        begin_string();
        end_string();
        write_string_fragment(fragment: &str);
        write_char_escape(escape: serde_json::ser::CharEscape);
        begin_array();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        begin_object_value();
        write_raw_fragment(fragment: &str);
    }
}

/// Kept apart, so that the loop over short numbers stays small.
#[inline(never)]
fn digits_of_float<W: ?Sized + Write>(
    array: &mut NumberArrays,
    writer: &mut W,
    x: f32,
) -> Result<()> {
    array.flush(writer)?;
    CompactFormatter.write_f32(writer, x)
}
