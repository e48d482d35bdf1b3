//! Matrices that are mostly zero.

use tinsmith_wire::TensorData;

use crate::{Error, Result};

/// The matrix, as CSR where that takes less: when `rows + 1 + 2 * nonzero` is below the number of elements.
pub(crate) fn matrix(values: Vec<f32>, [rows, cols]: [usize; 2]) -> Result<TensorData> {
    let nonzero = values.iter().filter(|&&x| x != 0.0).count();
    if cols == 0 || rows + 1 + 2 * nonzero >= values.len() {
        return TensorData::new(values, &[rows, cols]).map_err(Error::Encode);
    }
    let mut listed = Vec::with_capacity(nonzero);
    let (mut crow, mut col) = (vec![0], Vec::with_capacity(nonzero));
    for row in values.chunks(cols) {
        for (i, &x) in row.iter().enumerate().filter(|(_, x)| **x != 0.0) {
            listed.push(x);
            col.push(i as i64);
        }
        crow.push(listed.len() as i64);
    }
    TensorData::csr(listed, crow, col, [rows, cols]).map_err(Error::Encode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_values_are_listed_and_many_are_not() {
        let few = matrix(vec![0.0, 0.0, 3.0, 0.0, -0.0, 0.0, 0.0, 0.0], [2, 4]).unwrap();
        let csr = few.sparse().unwrap();
        assert_eq!((&csr.crow[..], &csr.col[..]), (&[0, 1, 1][..], &[2][..]));
        let dense = few.to_dense().unwrap();
        assert_eq!(
            dense.as_f32().unwrap(),
            [0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        );
        // 2 rows, 3 values: 2 + 1 + 6 is not below 8.
        let many = matrix(vec![1.0, 0.0, 3.0, 0.0, 5.0, 0.0, 0.0, 0.0], [2, 4]).unwrap();
        assert!(many.sparse().is_none());
        for empty in [[0, 4], [3, 0]] {
            assert!(matrix(vec![], empty).unwrap().sparse().is_none());
        }
    }
}
