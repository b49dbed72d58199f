//! What can be read on the screen, and which mode is set.

use super::registers::gfx;
use super::state::Registers;
use crate::codepage::unicode;
use crate::screen::Mode;

impl Registers {
    /// The mode that is set.
    pub(super) fn mode(&self) -> Mode {
        if self.extended() {
            let shown = self.linear();
            return Mode::Graphics { width: shown.width, height: shown.height, depth: shown.depth };
        }
        let picture = self.picture();
        if self.is_text() {
            return Mode::Text { columns: picture.characters, rows: self.rows().count() };
        }
        let depth = match self.gfx[gfx::MODE] {
            mode if mode & gfx::MODE_256 != 0 => 8,
            mode if mode & gfx::MODE_INTERLEAVED != 0 => 2,
            _ => 4,
        };
        Mode::Graphics { width: picture.width(), height: picture.height, depth }
    }

    /// Addresses of rows of characters from the top.
    fn rows(&self) -> impl Iterator<Item = u32> {
        let (picture, mut last) = (self.picture(), None);
        picture.scans().filter_map(move |scan| {
            let row = (scan.address, scan.below);
            (last.replace(row) != Some(row)).then_some(scan.address)
        })
    }

    /// In text modes, what can be read in `memory`, the first 256 KiB.
    pub(super) fn text(&self, memory: &[u8]) -> Option<String> {
        if self.extended() || !self.is_text() {
            return None;
        }
        let picture = self.picture();
        let rows = self.rows().map(|address| {
            let cells = (0..picture.characters as u32).map(|n| picture.place(address.wrapping_add(n), 0) as usize * 4);
            let row: String = cells.map(|at| unicode(memory.get(at).copied().unwrap_or(0))).collect();
            row.trim_end().to_owned()
        });
        Some(rows.collect::<Vec<_>>().join("\n"))
    }
}
