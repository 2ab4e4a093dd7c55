//! Recovers lost symbols of a generation from its coded ones, column by column.

use super::Buffer;
use crate::fec::{self, Kernel, Unsolved};

impl Buffer {
    /// Decodes missing symbols once all relevant columns have enough. Returns true if any symbol
    /// was recovered.
    pub(super) fn decode(&mut self) -> bool {
        let Some(grid) = self.grid else { return false };
        if self.coded.is_empty() || self.columns.iter().any(|c| c.need() > 0) {
            return false;
        }

        let columns = u32::from(grid.columns());
        let mut lost = vec![Vec::new(); self.columns.len()];
        for index in self.got.gaps().flatten().map(|i| i as u32) {
            let column = (index % columns) as usize;
            if self.columns[column].needed > 0 {
                lost[column].push((index / columns) as u16);
            }
        }

        let symbol = usize::from(grid.symbol());
        let coded: Vec<fec::Coded<'_>> = self.coded.iter(symbol).collect();
        let unsolved = match fec::decode(Kernel::best(), &grid, &mut self.bytes, &lost, &coded) {
            Ok(()) => Vec::new(),
            Err(Unsolved::Short(columns)) => columns,
            // Unreachable: the decoder counts symbols in the same way.
            Err(Unsolved::Malformed(_)) => return false,
        };

        let mut changed = false;
        for (column, rows) in lost.iter().enumerate() {
            match unsolved.iter().find(|u| usize::from(u.column) == column) {
                Some(short) => self.columns[column].extra += short.missing as u32,
                None => {
                    for index in rows
                        .iter()
                        .map(|&row| u32::from(row) * columns + column as u32)
                    {
                        if self.got.set(index) {
                            self.arrived(grid, index);
                            changed = true;
                        }
                    }
                }
            }
        }

        changed
    }
}
