//! The JSON form of [`TensorData`]. Values go straight between the text and a `Vec` of their own
//! type.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
    ser::{self, SerializeMap},
};

use crate::{
    Csr, DType, Data, TensorData,
    numbers::{self, Number},
};

impl Serialize for TensorData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        // The dtype goes first: a reader then knows how to read the values.
        map.serialize_entry("dtype", &self.dtype())?;
        if let Some(shape) = self.stated_shape() {
            map.serialize_entry("shape", shape)?;
        }
        match self.data() {
            Data::F32(values) => map.serialize_entry("data", &Finite(values))?,
            Data::I64(values) => map.serialize_entry("data", values)?,
        }
        if let Some(csr) = self.sparse() {
            map.serialize_entry("sparse_crow_indices", &csr.crow)?;
            map.serialize_entry("sparse_col_indices", &csr.col)?;
        }
        map.end()
    }
}

/// Numbers that must be finite to be written: JSON has no other.
pub(crate) struct Finite<'a>(pub &'a [f32]);

impl Serialize for Finite<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        all_finite(self.0)?;
        self.0.serialize(serializer)
    }
}

/// Refuses what JSON cannot carry, by its place among the numbers.
pub(crate) fn all_finite<'a, E: ser::Error>(
    numbers: impl IntoIterator<Item = &'a f32>,
) -> Result<(), E> {
    match numbers.into_iter().enumerate().find(|(_, x)| !x.is_finite()) {
        None => Ok(()),
        Some((i, x)) => Err(E::custom(format!("element {i} is {x}, which JSON cannot carry"))),
    }
}

impl<'de> Deserialize<'de> for TensorData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TensorVisitor)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Dtype,
    Shape,
    Data,
    SparseCrowIndices,
    SparseColIndices,
    #[serde(other)]
    Unknown,
}

struct TensorVisitor;

impl<'de> Visitor<'de> for TensorVisitor {
    type Value = TensorData;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tensor: {\"dtype\", \"data\", \"shape\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TensorData, A::Error> {
        let mut dtype = None;
        let mut data = None;
        let mut shape: Option<Vec<usize>> = None;
        let mut crow: Option<Arc<[i64]>> = None;
        let mut col: Option<Arc<[i64]>> = None;
        while let Some(field) = map.next_key()? {
            match field {
                Field::Dtype => dtype = Some(map.next_value::<DType>()?),
                Field::Data => data = Some(map.next_value_seed(Values(dtype))?),
                Field::Shape => shape = map.next_value()?,
                Field::SparseCrowIndices => crow = map.next_value()?,
                Field::SparseColIndices => col = map.next_value()?,
                Field::Unknown => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let dtype = dtype.ok_or_else(|| de::Error::missing_field("dtype"))?;
        let data = data.ok_or_else(|| de::Error::missing_field("data"))?;
        let data = match (dtype, data) {
            (DType::Float32, Data::I64(ints)) => {
                ints.iter().map(|&i| i as f32).collect::<Vec<_>>().into()
            }
            (DType::Int64, Data::F32(_)) => {
                let reason = "`data` of an int64 tensor holds a fraction, null or NaN";
                return Err(de::Error::custom(reason));
            }
            (_, data) => data,
        };
        let sparse = match (crow, col) {
            (None, None) => None,
            (Some(crow), Some(col)) => Some(Csr { crow, col }),
            (None, Some(_)) => return Err(de::Error::missing_field("sparse_crow_indices")),
            (Some(_), None) => return Err(de::Error::missing_field("sparse_col_indices")),
        };
        TensorData::from_parts(data, shape.map(Into::into), sparse).map_err(de::Error::custom)
    }
}

/// The values, as `dtype` says when it is known already, else as they look.
struct Values(Option<DType>);

impl<'de> DeserializeSeed<'de> for Values {
    type Value = Data;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Data, D::Error> {
        match self.0 {
            Some(DType::Float32) => numbers::floats(deserializer).map(Data::from),
            Some(DType::Int64) => Vec::<i64>::deserialize(deserializer).map(Data::from),
            None => deserializer.deserialize_seq(UntypedValues),
        }
    }
}

/// Values whose dtype comes later (the Python SDK writes `data` first): integers are kept exact
/// until a fraction shows that the tensor is `float32`.
struct UntypedValues;

impl<'de> Visitor<'de> for UntypedValues {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Data, A::Error> {
        let mut ints: Vec<i64> = Vec::new();
        let first = loop {
            match seq.next_element()? {
                None => return Ok(ints.into()),
                Some(Number::Int(i)) => ints.push(i),
                Some(fraction) => break fraction.into(),
            }
        };
        let mut floats: Vec<f32> = ints.into_iter().map(|i| i as f32).collect();
        floats.push(first);
        while let Some(number) = seq.next_element::<Number>()? {
            floats.push(number.into());
        }
        Ok(floats.into())
    }
}
