//! Tensors as they travel: flat values, a shape, and for sparse matrices the CSR indices.

use std::{borrow::Cow, sync::Arc};

use crate::elements::{DType, elem_count};
use crate::{Error, Result};

/// The values of a tensor, flat and row-major. Clones share them.
///
/// ```
/// use tinsmith_wire::{DType, Data};
/// let data = Data::from(vec![1.0f32, 2.0]);
/// assert_eq!((data.len(), data.dtype()), (2, DType::Float32));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// `float32` values.
    F32(Arc<[f32]>),
    /// `int64` values.
    I64(Arc<[i64]>),
}

impl Data {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(v) => v.len(),
            Data::I64(v) => v.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match self {
            Data::F32(_) => DType::Float32,
            Data::I64(_) => DType::Int64,
        }
    }
}

macro_rules! data_from {
    ($($source:ty => $variant:ident),*) => {$(
        impl From<$source> for Data {
            fn from(values: $source) -> Self {
                Data::$variant(values.into())
            }
        }
    )*};
}
data_from!(Vec<f32> => F32, &[f32] => F32, Arc<[f32]> => F32, Vec<i64> => I64, &[i64] => I64, Arc<[i64]> => I64);

/// Row and column indices of a compressed-sparse-row matrix.
///
/// ```
/// use tinsmith_wire::{Csr, TensorData};
/// // [[0, 7], [0, 0]]
/// let matrix = TensorData::csr(vec![7i64], vec![0, 1, 1], vec![1], [2, 2])?;
/// let Csr { crow, col } = matrix.sparse().unwrap();
/// assert_eq!((&crow[..], &col[..]), (&[0, 1, 1][..], &[1][..]));
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    /// `rows + 1` ascending offsets into the values, the first 0, the last their number.
    pub crow: Arc<[i64]>,
    /// The column of each value, ascending within a row.
    pub col: Arc<[i64]>,
}

/// A tensor on the wire: `float32` or `int64`, dense of any rank or CSR of rank 2.
///
/// Always well formed: shape and data agree, CSR indices are in range. Making or decoding one that
/// is not is an error. Clones share the values.
///
/// ```
/// use tinsmith_wire::TensorData;
/// let weights = TensorData::new(vec![0.0f32, 1.0, 1.0, 0.5], &[2, 2])?;
/// assert_eq!(weights.shape(), [2, 2].as_slice());
/// assert_eq!(weights.as_f32().unwrap()[3], 0.5);
/// assert_eq!(
///     TensorData::new(vec![1.0f32], &[2]).unwrap_err().to_string(),
///     "`shape` [2] holds 2 elements, `data` has 1"
/// );
/// # Ok::<(), tinsmith_wire::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TensorData {
    data: Data,
    shape: Option<Arc<[usize]>>,
    sparse: Option<Csr>,
}

impl TensorData {
    /// A dense tensor of `shape`; `&[]` is a scalar.
    ///
    /// # Errors
    /// [`Error::Shape`] when the element counts differ.
    pub fn new(data: impl Into<Data>, shape: &[usize]) -> Result<Self> {
        Self::from_parts(data.into(), Some(shape.into()), None)
    }

    /// A sparse `[rows, cols]` matrix; `data` are the listed values.
    ///
    /// # Errors
    /// [`Error::Csr`] naming the index array at fault.
    ///
    /// ```
    /// use tinsmith_wire::TensorData;
    /// let m = TensorData::csr(vec![5.0f32, 6.0], vec![0, 1, 2], vec![2, 0], [2, 3])?;
    /// assert_eq!(m.to_dense()?.as_f32().unwrap(), [0.0, 0.0, 5.0, 6.0, 0.0, 0.0]);
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    pub fn csr(
        data: impl Into<Data>,
        crow: impl Into<Arc<[i64]>>,
        col: impl Into<Arc<[i64]>>,
        shape: [usize; 2],
    ) -> Result<Self> {
        let sparse = Csr { crow: crow.into(), col: col.into() };
        Self::from_parts(data.into(), Some(shape.as_slice().into()), Some(sparse))
    }

    /// From the parts of the wire form. Without `shape` the tensor has one dimension.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Csr`].
    ///
    /// ```
    /// use tinsmith_wire::TensorData;
    /// let flat = TensorData::from_parts(vec![1i64, 2, 3].into(), None, None)?;
    /// assert_eq!((flat.shape().to_vec(), flat.stated_shape()), (vec![3], None));
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    pub fn from_parts(
        data: Data,
        shape: Option<Arc<[usize]>>,
        sparse: Option<Csr>,
    ) -> Result<Self> {
        match (&sparse, &shape) {
            (None, None) => {}
            (None, Some(shape)) if elem_count(shape) == Some(data.len()) => {}
            (None, Some(shape)) => {
                return Err(Error::Shape { shape: shape.to_vec(), len: data.len() });
            }
            (Some(csr), shape) => check_csr(csr, shape.as_deref(), data.len())?,
        }
        Ok(TensorData { data, shape, sparse })
    }

    /// The values; of a sparse tensor the listed ones.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// The shape; `[len]` when none was given.
    pub fn shape(&self) -> Cow<'_, [usize]> {
        match &self.shape {
            Some(shape) => Cow::Borrowed(shape),
            None => Cow::Owned(vec![self.data.len()]),
        }
    }

    /// The shape as it was given, `None` when it was left out.
    pub fn stated_shape(&self) -> Option<&[usize]> {
        self.shape.as_deref()
    }

    /// The CSR indices of a sparse tensor.
    pub fn sparse(&self) -> Option<&Csr> {
        self.sparse.as_ref()
    }

    /// Number of elements of the dense form.
    pub fn elem_count(&self) -> usize {
        // A sparse shape may exceed usize; no dense form of it can exist then.
        elem_count(&self.shape()).unwrap_or(usize::MAX)
    }

    /// The values of a dense `float32` tensor.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match (&self.data, &self.sparse) {
            (Data::F32(values), None) => Some(values),
            _ => None,
        }
    }

    /// The values of a dense `int64` tensor.
    pub fn as_i64(&self) -> Option<&[i64]> {
        match (&self.data, &self.sparse) {
            (Data::I64(values), None) => Some(values),
            _ => None,
        }
    }

    /// A matrix of these rows.
    ///
    /// # Errors
    /// [`Error::Ragged`] when the rows are of different lengths.
    ///
    /// ```
    /// use tinsmith_wire::TensorData;
    /// assert_eq!(TensorData::from_rows(&[[1i64, 2], [3, 4]])?.shape(), [2, 2].as_slice());
    /// assert!(TensorData::from_rows(&[vec![1.0f32], vec![]]).is_err());
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    pub fn from_rows<T: Copy, R: AsRef<[T]>>(rows: &[R]) -> Result<Self>
    where
        Vec<T>: Into<Data>,
    {
        let cols = rows.first().map_or(0, |row| row.as_ref().len());
        let lengths = rows.iter().map(|row| row.as_ref().len());
        if let Some((row, found)) = lengths.enumerate().find(|&(_, found)| found != cols) {
            return Err(Error::Ragged { row, found, cols });
        }
        let mut values = Vec::with_capacity(rows.len() * cols);
        rows.iter().for_each(|row| values.extend_from_slice(row.as_ref()));
        Self::new(values, &[rows.len(), cols])
    }

    /// The CSR form, if that takes fewer numbers: of a dense matrix for which
    /// `rows + 1 + 2 * nonzeros < rows * columns`. Anything else is shared as it is.
    ///
    /// ```
    /// use tinsmith_wire::TensorData;
    /// let weights = TensorData::from_rows(&[[0.0f32, 0.0, 0.0, 9.0], [8.0, 0.0, 0.0, 0.0]])?.into_smaller();
    /// assert_eq!(*weights.sparse().unwrap().col, [3, 0]);
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    #[must_use]
    pub fn into_smaller(self) -> Self {
        let (None, Some(&[rows, cols])) = (&self.sparse, self.shape.as_deref()) else {
            return self;
        };
        let sparse = match &self.data {
            Data::F32(values) => gather(values, rows, cols),
            Data::I64(values) => gather(values, rows, cols),
        };
        match sparse {
            Some((data, csr)) => TensorData { data, sparse: Some(csr), ..self },
            None => self,
        }
    }

    /// The dense form; unlisted values of a sparse tensor are 0. A dense tensor is shared, not
    /// copied.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when a sparse tensor's shape is out of proportion to what it lists:
    /// above 2^22 elements, and 2^12 more for each row and each listed value.
    ///
    /// ```
    /// use tinsmith_wire::TensorData;
    /// let sparse = TensorData::csr(vec![7i64], vec![0, 1, 1], vec![1], [2, 2])?;
    /// assert_eq!(sparse.as_i64(), None);
    /// assert_eq!(sparse.to_dense()?.as_i64().unwrap(), [0, 7, 0, 0]);
    /// # Ok::<(), tinsmith_wire::Error>(())
    /// ```
    pub fn to_dense(&self) -> Result<TensorData> {
        let Some(csr) = &self.sparse else {
            return Ok(self.clone());
        };
        let shape = self.shape();
        let data = match &self.data {
            Data::F32(values) => scatter(values, csr, &shape)?.into(),
            Data::I64(values) => scatter(values, csr, &shape)?.into(),
        };
        TensorData::from_parts(data, self.shape.clone(), None)
    }
}

impl<T: Into<Data>> From<T> for TensorData {
    /// A one-dimensional tensor.
    fn from(data: T) -> Self {
        let data = data.into();
        TensorData { shape: Some([data.len()].as_slice().into()), data, sparse: None }
    }
}

fn check_csr(csr: &Csr, shape: Option<&[usize]>, values: usize) -> Result<()> {
    let fail = |field, reason| Err(Error::Csr { field, reason });
    let Some(&[rows, cols]) = shape else {
        return fail("shape", format!("a sparse tensor needs a shape of rank 2, got {shape:?}"));
    };
    let (crow, col) = (&csr.crow, &csr.col);
    if rows.checked_add(1) != Some(crow.len()) {
        let reason = format!("{rows} rows need {rows} + 1 offsets, got {}", crow.len());
        return fail("sparse_crow_indices", reason);
    }
    if col.len() != values {
        let reason = format!("{} column indices for {values} values", col.len());
        return fail("sparse_col_indices", reason);
    }
    if crow[0] != 0 || usize::try_from(crow[rows]) != Ok(values) {
        let reason = format!(
            "offsets must run from 0 to {values}, they run from {} to {}",
            crow[0], crow[rows]
        );
        return fail("sparse_crow_indices", reason);
    }
    for (row, ends) in crow.windows(2).enumerate() {
        // Ascending from 0 to `values`, so every offset met here is a valid index, once checked.
        if ends[0] > ends[1] || ends[1] > crow[rows] {
            let reason = format!("offsets of row {row} run from {} to {}", ends[0], ends[1]);
            return fail("sparse_crow_indices", reason);
        }
        let cells = &col[ends[0] as usize..ends[1] as usize];
        if let Some(bad) = cells.iter().find(|&&c| usize::try_from(c).map_or(true, |c| c >= cols)) {
            let reason = format!("column {bad} in row {row} of a matrix with {cols} columns");
            return fail("sparse_col_indices", reason);
        }
        if cells.windows(2).any(|pair| pair[0] >= pair[1]) {
            let reason = format!("columns of row {row} are not ascending");
            return fail("sparse_col_indices", reason);
        }
    }
    Ok(())
}

/// The nonzeros of a dense matrix, if they take less than the whole.
fn gather<T>(values: &[T], rows: usize, cols: usize) -> Option<(Data, Csr)>
where
    T: Copy + Default + PartialEq,
    Vec<T>: Into<Data>,
{
    let nonzeros = values.iter().filter(|&&x| x != T::default()).count();
    // An empty matrix may claim any number of rows.
    if values.is_empty() || rows + 1 + 2 * nonzeros >= values.len() {
        return None;
    }
    let (mut listed, mut col) = (Vec::with_capacity(nonzeros), Vec::with_capacity(nonzeros));
    let mut crow = Vec::with_capacity(rows + 1);
    crow.push(0);
    for row in values.chunks_exact(cols) {
        for (c, &x) in (0i64..).zip(row).filter(|&(_, &x)| x != T::default()) {
            listed.push(x);
            col.push(c);
        }
        crow.push(col.len() as i64);
    }
    let (crow, col) = (crow.into(), col.into());
    Some((listed.into(), Csr { crow, col }))
}

/// Elements of a dense form that any sparse tensor may have, and how many more for each row and
/// each listed value. A shape costs no bytes, so without a limit a short message could fill memory.
const MOST_DENSE: usize = 1 << 22;
const MOST_DENSE_PER_NUMBER: usize = 1 << 12;

fn scatter<T: Copy + Default>(values: &[T], csr: &Csr, shape: &[usize]) -> Result<Arc<[T]>> {
    let numbers = csr.crow.len().saturating_add(values.len());
    let limit = MOST_DENSE.saturating_add(MOST_DENSE_PER_NUMBER.saturating_mul(numbers));
    let n = elem_count(shape)
        .filter(|&n| n <= limit)
        .ok_or_else(|| Error::TooLarge { shape: shape.to_vec(), limit })?;
    // Made where it stays: a `Vec` would be copied, and be there twice meanwhile.
    let mut dense: Arc<[T]> = std::iter::repeat_n(T::default(), n).collect();
    if let Some(dense) = Arc::get_mut(&mut dense) {
        for (row, ends) in csr.crow.windows(2).enumerate() {
            for i in ends[0] as usize..ends[1] as usize {
                dense[row * shape[1] + csr.col[i] as usize] = values[i];
            }
        }
    }
    Ok(dense)
}
