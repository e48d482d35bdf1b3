//! Results of forward and forward_backward: data of one kind are batched, field by field.

use std::collections::BTreeMap;

use super::{
    fault::{Fault, Result, Within, each},
    messages::{self, ArrayRecord, BatchedTensor, DType},
    payload, sealed, tensor,
};
use crate::{Data, ForwardBackwardOutput, TensorData};

/// What a server answers when it leaves out the fields of its records: so many data, and nothing in
/// them. More than any request holds; each costs memory and none costs bytes, so there must be a
/// limit.
const MAX_BARE_DATA: usize = 1 << 16;
/// Longest name of a field and largest rank, which every datum of a record repeats.
const MAX_NAME: usize = 256;
const MAX_RANK: usize = 16;

type Output = BTreeMap<String, TensorData>;

impl sealed::Message for ForwardBackwardOutput {
    type Wire = messages::ForwardBackwardOutput;
    const NAME: &'static str = "ForwardBackwardOutput";

    fn to_wire(&self) -> Result<Self::Wire> {
        let mut start = 0;
        let groups = self.loss_fn_outputs.chunk_by(alike);
        let record = |group| {
            let record = record_to_wire(group, start);
            start += group.len();
            record
        };
        Ok(messages::ForwardBackwardOutput {
            loss_fn_output_type: self.loss_fn_output_type.clone(),
            loss_fn_outputs: groups.map(record).collect::<Result<_>>()?,
            metrics: self.metrics.iter().map(|(name, x)| (name.to_owned(), x)).collect(),
        })
    }
}

impl sealed::Decode for ForwardBackwardOutput {
    fn from_wire(wire: Self::Wire) -> Result<Self> {
        let given = match wire.loss_fn_outputs.first() {
            Some(record) if wire.loss_fn_output_type.is_empty() => &record.type_tag,
            _ => &wire.loss_fn_output_type,
        };
        let loss_fn_output_type = match given.rsplit(':').next() {
            None | Some("") => RECORD,
            Some(name) => name,
        }
        .to_owned();
        let bare = wire.loss_fn_outputs.iter().filter(|r| r.fields.is_empty());
        let bare = bare.fold(0i64, |n, r| n.saturating_add(r.num_datums.max(0)));
        if bare > MAX_BARE_DATA as i64 {
            let fault =
                Fault::new(format!("{bare} data without a field, the limit is {MAX_BARE_DATA}"));
            return Err(fault.within("loss_fn_outputs"));
        }
        let records = each("loss_fn_outputs", wire.loss_fn_outputs, record_from_wire)?;
        Ok(ForwardBackwardOutput {
            loss_fn_output_type,
            loss_fn_outputs: records.into_iter().flatten().collect(),
            metrics: wire.metrics.into_iter().collect(),
        })
    }
}

const RECORD: &str = "ArrayRecord";

/// Whether two data fit in one record: the same fields, of the same dtypes and trailing shapes.
fn alike(a: &Output, b: &Output) -> bool {
    let kind = |(name, tensor): (_, &TensorData)| (name, tensor.dtype(), trailing(tensor));
    a.len() == b.len() && a.iter().map(kind).eq(b.iter().map(kind))
}

/// All dimensions but the first.
fn trailing(tensor: &TensorData) -> Vec<usize> {
    tensor.shape().iter().skip(1).copied().collect()
}

/// `group` begins at datum `start`.
fn record_to_wire(group: &[Output], start: usize) -> Result<ArrayRecord> {
    let names = group.first().into_iter().flat_map(Output::keys);
    let fields = names.map(|name| Ok((name.clone(), batch(name, group, start)?)));
    Ok(ArrayRecord {
        type_tag: RECORD.to_owned(),
        fields: fields.collect::<Result<_>>()?,
        num_datums: group.len() as i64,
    })
}

fn batch(name: &str, group: &[Output], start: usize) -> Result<BatchedTensor> {
    let (mut data, mut offsets) = (Vec::new(), vec![0i64]);
    let mut batched = BatchedTensor::default();
    for (i, tensor) in group.iter().map(|output| &output[name]).enumerate() {
        if tensor.sparse().is_some() {
            let fault = Fault::new("it is sparse, which a result cannot be; make it dense");
            return Err(fault.within(format_args!("loss_fn_outputs[{}].{name}", start + i)));
        }
        let dtype = match tensor.data() {
            Data::F32(values) => {
                payload::extend(&mut data, values);
                DType::Float32
            }
            Data::I64(values) => {
                payload::extend(&mut data, values);
                DType::Int64
            }
        };
        offsets.push(data.len() as i64);
        batched.set_dtype(dtype);
        batched.trailing_shape = trailing(tensor).into_iter().map(|d| d as i64).collect();
    }
    batched.data = data.into();
    batched.offsets = payload::bytes(&offsets.into());
    Ok(batched)
}

fn record_from_wire(record: ArrayRecord) -> Result<Vec<Output>> {
    let stated = usize::try_from(record.num_datums)
        .map_err(|_| Fault::new(format!("{} is negative", record.num_datums)))
        .within("num_datums")?;
    let first =
        record.fields.values().next().map(|field| (field.offsets.len() / 8).saturating_sub(1));
    let count = match (first, stated) {
        (Some(rows), 0) => rows,
        // With a field, the bytes of its offsets vouch for the number of rows.
        (Some(rows), _) if rows != stated => {
            let reason = format!("{stated}, but there are offsets of {rows} data");
            return Err(Fault::new(reason).within("num_datums"));
        }
        _ => stated,
    };
    let mut outputs = vec![Output::new(); count];
    for (name, field) in record.fields {
        let place = format_args!("fields.{name}").to_string();
        if name.len() > MAX_NAME {
            return Err(Fault::new(format!(
                "a name of {} bytes, the limit is {MAX_NAME}",
                name.len()
            ))
            .within("fields"));
        }
        unbatch(&name, &field, &mut outputs).within(place)?;
    }
    Ok(outputs)
}

/// Gives each datum its own rows of `field`.
fn unbatch(name: &str, field: &BatchedTensor, outputs: &mut [Output]) -> Result<()> {
    if field.trailing_shape.len() >= MAX_RANK {
        let reason = format!("rank {}, the limit is {MAX_RANK}", field.trailing_shape.len() + 1);
        return Err(Fault::new(reason).within("trailing_shape"));
    }
    let trailing = tensor::shape(&field.trailing_shape).within("trailing_shape")?;
    let row = crate::elements::elem_count(&trailing)
        .ok_or_else(|| Fault::new(format!("{trailing:?} overflows")))
        .within("trailing_shape")?;
    let offsets: Vec<i64> = payload::numbers(&field.offsets).within("offsets")?;
    if offsets.len() != outputs.len() + 1 {
        let reason = format!("{} offsets for {} data", offsets.len(), outputs.len());
        return Err(Fault::new(reason).within("offsets"));
    }
    let mut end = 0;
    for (i, (output, ends)) in outputs.iter_mut().zip(offsets.windows(2)).enumerate() {
        let slice = (ends[0] >= end)
            .then(|| Some((usize::try_from(ends[0]).ok()?, usize::try_from(ends[1]).ok()?)))
            .flatten()
            .and_then(|(start, stop)| field.data.get(start..stop));
        end = ends[1];
        let Some(bytes) = slice else {
            let reason =
                format!("datum {i} lies at {}..{} of {} bytes", ends[0], ends[1], field.data.len());
            return Err(Fault::new(reason).within("offsets"));
        };
        let values =
            tensor::values(field.dtype, bytes).within(format_args!("data of datum {i}"))?;
        let rows = values.len().checked_div(row).unwrap_or(0);
        let shape: Vec<usize> = [rows].into_iter().chain(trailing.iter().copied()).collect();
        let tensor = TensorData::new(values, &shape).within(format_args!("data of datum {i}"))?;
        output.insert(name.to_owned(), tensor);
    }
    Ok(())
}
