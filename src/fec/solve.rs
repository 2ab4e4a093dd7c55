//! Selects the coded rows that determine the lost ones and inverts their matrix: elimination on
//! coefficients alone, without any data.

use super::{Kernel, coefficient, field};

/// Largest number of lost rows in one column that coded symbols can recover. The work grows with
/// its square; a column with more losses has to be resent in part.
pub const MAX_LOST: usize = 1024;

/// Number of coded symbols that a column still needs, given the lost rows `lost` and the received
/// coded rows `coded`. 0 means enough.
///
/// Mostly the difference of the two counts; once in 250 times the coded rows depend on each other
/// and one more is needed. Never 0 with more than [`MAX_LOST`] lost rows.
pub fn deficit(kernel: Kernel, lost: &[u16], coded: impl IntoIterator<Item = u16>) -> usize {
    if lost.len() > MAX_LOST {
        return lost.len() - coded.into_iter().take(MAX_LOST).count();
    }

    let mut elimination = Elimination::new(kernel, lost.len(), false);
    for row in coded {
        if elimination.is_complete() {
            break;
        }
        elimination.insert(lost.iter().map(|&l| coefficient(row, l)));
    }

    elimination.deficit()
}

/// The lost rows of a column, expressed by coded rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Solution {
    /// Indices of the coded rows in use, ascending.
    pub used: Vec<usize>,
    /// Row `i` yields lost row `i` from the used coded rows, after subtraction of all known rows.
    pub inverse: Vec<u8>,
}

/// Selects as many coded rows as rows are lost. The error is the number of further rows needed.
pub(super) fn solve(kernel: Kernel, lost: &[u16], coded: &[u16]) -> Result<Solution, usize> {
    if lost.len() > MAX_LOST || coded.len() < lost.len() {
        return Err(deficit(kernel, lost, coded.iter().copied()));
    }

    let mut elimination = Elimination::new(kernel, lost.len(), true);
    let mut used = Vec::with_capacity(lost.len());
    for (at, &row) in coded.iter().enumerate() {
        if elimination.is_complete() {
            break;
        }
        if elimination.insert(lost.iter().map(|&l| coefficient(row, l))) {
            used.push(at);
        }
    }

    match elimination.deficit() {
        0 => Ok(Solution {
            used,
            inverse: elimination.inverse(),
        }),
        more => Err(more),
    }
}

/// Gauss-Jordan elimination of a matrix whose rows arrive one by one; rows that depend on earlier
/// ones are rejected.
struct Elimination {
    kernel: Kernel,
    /// Columns of the matrix.
    size: usize,
    /// Bytes of a stored row: the matrix, followed by the record of row operations if an inverse is
    /// wanted.
    stride: usize,
    rows: Vec<u8>,
    /// The stored row that begins with each column.
    pivots: Vec<Option<usize>>,
    rank: usize,
}

impl Elimination {
    fn new(kernel: Kernel, size: usize, inverse: bool) -> Self {
        let stride = if inverse { 2 * size } else { size };
        Self {
            kernel,
            size,
            stride,
            rows: Vec::new(),
            pivots: vec![None; size],
            rank: 0,
        }
    }

    fn is_complete(&self) -> bool {
        self.rank == self.size
    }

    fn deficit(&self) -> usize {
        self.size - self.rank
    }

    /// Takes one more row; returns whether it is independent of the earlier rows.
    fn insert(&mut self, row: impl Iterator<Item = u8>) -> bool {
        let start = self.rows.len();
        self.rows.extend(row.take(self.size));
        self.rows.resize(start + self.stride, 0);
        let (stored, fresh) = self.rows.split_at_mut(start);
        if let Some(own) = fresh.get_mut(self.size + self.rank) {
            *own = 1;
        }

        for column in 0..self.size {
            if fresh[column] == 0 {
                continue;
            }
            let Some(pivot) = self.pivots[column] else {
                let factor = field::inverse(fresh[column]);
                fresh
                    .iter_mut()
                    .for_each(|byte| *byte = field::multiply(factor, *byte));
                self.pivots[column] = Some(self.rank);
                self.rank += 1;
                return true;
            };
            let factor = fresh[column];
            self.kernel
                .multiply_add(fresh, factor, &stored[pivot * self.stride..][..self.stride]);
        }

        self.rows.truncate(start);
        false
    }

    /// Inverse of the matrix of accepted rows, which must be complete.
    fn inverse(mut self) -> Vec<u8> {
        let order: Vec<usize> = self.pivots.iter().flatten().copied().collect();
        // From the last column up: a row is cleared of later columns before being subtracted from
        // earlier rows.
        for (column, &pivot) in order.iter().enumerate().rev() {
            for &earlier in &order[..column] {
                let a = pivot * self.stride;
                let b = earlier * self.stride;
                let Ok([pivot, earlier]) = self
                    .rows
                    .get_disjoint_mut([a..a + self.stride, b..b + self.stride])
                else {
                    continue;
                };
                let factor = earlier[column];
                self.kernel.multiply_add(earlier, factor, pivot);
            }
        }

        order
            .iter()
            .flat_map(|row| &self.rows[row * self.stride + self.size..][..self.size])
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Product of the inverse and its matrix.
    fn product(lost: &[u16], coded: &[u16], solution: &Solution) -> Vec<u8> {
        let n = lost.len();
        let mut product = vec![0; n * n];
        for (i, k, j) in (0..n * n * n).map(|at| (at / n / n, at / n % n, at % n)) {
            let entry = coefficient(coded[solution.used[k]], lost[j]);
            product[i * n + j] ^= field::multiply(solution.inverse[i * n + k], entry);
        }
        product
    }

    proptest! {
        #[test]
        fn an_inverse_is_one(
            lost in prop::collection::btree_set(0..400u16, 0..40),
            coded in prop::collection::vec(any::<u16>(), 0..44),
        ) {
            let lost: Vec<u16> = lost.into_iter().collect();
            let missing = deficit(Kernel::best(), &lost, coded.iter().copied());
            match solve(Kernel::portable(), &lost, &coded) {
                Err(more) => prop_assert_eq!(more, missing),
                Ok(solution) => {
                    prop_assert_eq!(missing, 0);
                    prop_assert_eq!(solution.used.len(), lost.len());
                    prop_assert!(solution.used.is_sorted());
                    let identity = |n: usize| u8::from(n / lost.len() == n % lost.len());
                    let expected: Vec<u8> = (0..lost.len() * lost.len()).map(identity).collect();
                    prop_assert_eq!(product(&lost, &coded, &solution), expected);
                }
            }
        }
    }

    #[test]
    fn a_random_square_is_seldom_singular() {
        let lost: Vec<u16> = (0..40).map(|n| n * 7).collect();
        let singular = |n: u16| deficit(Kernel::best(), &lost, n * 40..n * 40 + 40) > 0;
        let count = (0..1000).filter(|&n| singular(n)).count();
        // 1/255 of them on average.
        assert!((1..=12).contains(&count), "{count} of 1000 are singular");
    }

    #[test]
    fn the_same_row_twice_tells_nothing_new() {
        let deficit =
            |lost: &[u16], coded: &[u16]| deficit(Kernel::best(), lost, coded.iter().copied());
        assert_eq!(deficit(&[3, 5, 9], &[1, 1, 1]), 2);
        assert_eq!(deficit(&[3, 5, 9], &[]), 3);
        assert_eq!(deficit(&[], &[]), 0);

        assert_eq!(
            deficit(&[3, 3], &[1, 2, 3, 4, 5]),
            1,
            "the same row cannot be lost twice"
        );
    }

    #[test]
    fn too_many_lost_ones_are_never_solved() {
        let lost: Vec<u16> = (0..=MAX_LOST as u16).collect();
        assert_eq!(deficit(Kernel::best(), &lost, 0..u16::MAX), 1);
        assert_eq!(deficit(Kernel::best(), &lost, 0..3), MAX_LOST - 2);
        assert_eq!(
            solve(Kernel::best(), &lost, &(0..2000).collect::<Vec<_>>()),
            Err(1)
        );

        assert!(
            solve(Kernel::best(), &lost[1..], &(0..1030).collect::<Vec<_>>()).is_ok(),
            "as many as allowed"
        );
    }
}
