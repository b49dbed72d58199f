//! What of a picture a viewer has not seen yet, in tiles.

use lodge_display::Frame;

/// A side of a tile, which is also ZRLE's.
pub const TILE: usize = 64;
/// Most pixels of a rectangle, which bounds what is buffered of it.
const MOST: usize = 1 << 20;

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// First column.
    pub x: usize,
    /// First row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Rect {
    /// What both have; `None`: nothing.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let (x, y) = (self.x.max(other.x), self.y.max(other.y));
        let (right, bottom) =
            ((self.x + self.width).min(other.x + other.width), (self.y + self.height).min(other.y + other.height));
        (x < right && y < bottom).then(|| Self { x, y, width: right - x, height: bottom - y })
    }

    /// The least that holds both.
    pub fn union(&self, other: &Self) -> Self {
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        let (right, bottom) =
            ((self.x + self.width).max(other.x + other.width), (self.y + self.height).max(other.y + other.height));
        Self { x, y, width: right - x, height: bottom - y }
    }
}

/// Which tiles of a viewer's picture are out of date.
pub struct Stale {
    width: usize,
    height: usize,
    columns: usize,
    tiles: Vec<bool>,
}

impl Stale {
    /// All of a picture of this size.
    pub fn all(width: usize, height: usize) -> Self {
        let columns = width.div_ceil(TILE);
        Self { width, height, columns, tiles: vec![true; columns * height.div_ceil(TILE)] }
    }

    /// The whole picture.
    pub fn bounds(&self) -> Rect {
        Rect { x: 0, y: 0, width: self.width, height: self.height }
    }

    fn tile(&self, index: usize) -> Rect {
        let (x, y) = (index % self.columns * TILE, index / self.columns * TILE);
        Rect { x, y, width: TILE.min(self.width - x), height: TILE.min(self.height - y) }
    }

    /// What overlaps a rectangle.
    pub fn mark(&mut self, rect: &Rect) {
        for index in 0..self.tiles.len() {
            if self.tile(index).intersect(rect).is_some() {
                self.tiles[index] = true;
            }
        }
    }

    /// Where two pictures differ.
    pub fn mark_changes(&mut self, old: &Frame, new: &Frame) {
        if (old.width, old.height) != (new.width, new.height) {
            self.tiles.fill(true);
            return;
        }
        for y in 0..self.height.min(new.height) {
            let (old, new) = (old.row(y), new.row(y));
            if old == new {
                continue;
            }
            let tiles = &mut self.tiles[y / TILE * self.columns..][..self.columns];
            for ((tile, old), new) in tiles.iter_mut().zip(old.chunks(TILE)).zip(new.chunks(TILE)) {
                *tile |= old != new;
            }
        }
    }

    /// Takes what is out of date within a rectangle, as few rectangles. What lies partly outside stays out of date.
    pub fn take(&mut self, within: &Rect) -> Vec<Rect> {
        let mut rects: Vec<Rect> = Vec::new();
        for start in (0..self.tiles.len()).step_by(self.columns.max(1)) {
            let mut run: Option<Rect> = None;
            for index in start..start + self.columns {
                let tile = self.tile(index);
                let seen = self.tiles[index].then(|| tile.intersect(within)).flatten();
                if seen == Some(tile) {
                    self.tiles[index] = false;
                }
                match (seen, &mut run) {
                    (Some(seen), Some(run)) => *run = run.union(&seen),
                    (Some(seen), None) => run = Some(seen),
                    (None, _) => rects.extend(run.take()),
                }
            }
            rects.extend(run);
        }
        merge(rects)
    }
}

/// Joins rectangles that lie below one another, as long as they do not become too large.
fn merge(rects: Vec<Rect>) -> Vec<Rect> {
    let mut merged: Vec<Rect> = Vec::new();
    // Where rectangles end that can go on.
    let mut open: Vec<usize> = Vec::new();
    for rect in rects {
        open.retain(|at| merged[*at].y + merged[*at].height >= rect.y);
        let above = open.iter().copied().find(|at| {
            let other = &merged[*at];
            other.y + other.height == rect.y
                && (other.x, other.width) == (rect.x, rect.width)
                && rect.width * (other.height + rect.height) <= MOST
        });
        match above {
            Some(at) => merged[at].height += rect.height,
            None => {
                open.push(merged.len());
                merged.push(rect);
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(x: usize, y: usize, width: usize, height: usize) -> Rect {
        Rect { x, y, width, height }
    }

    #[test]
    fn changes_become_few_rectangles() {
        let old = Frame::black(200, 150);
        let mut new = old.clone();
        let mut stale = Stale::all(200, 150);
        assert_eq!(stale.take(&rect(0, 0, 200, 150)), [rect(0, 0, 200, 150)]);
        assert_eq!(stale.take(&rect(0, 0, 200, 150)), []);
        new.pixels[70 * 200 + 199] = 1;
        new.pixels[149 * 200 + 195] = 1;
        new.pixels[149 * 200] = 1;
        stale.mark_changes(&old, &new);
        assert_eq!(stale.take(&rect(0, 0, 200, 150)), [rect(192, 64, 8, 86), rect(0, 128, 64, 22)]);
        stale.mark_changes(&old, &new);
        assert_eq!(stale.take(&rect(0, 100, 200, 40)), [rect(192, 100, 8, 40), rect(0, 128, 64, 12)]);
        // Which was only a part of it.
        assert_eq!(stale.take(&rect(0, 0, 200, 150)), [rect(192, 64, 8, 86), rect(0, 128, 64, 22)]);
        stale.mark(&rect(63, 63, 2, 1));
        assert_eq!(stale.take(&stale.bounds()), [rect(0, 0, 128, 64)]);
        stale.mark_changes(&old, &Frame::black(201, 150));
        assert_eq!(stale.take(&stale.bounds()), [rect(0, 0, 200, 150)]);
    }

    #[test]
    fn rectangles_are_bounded() {
        let mut stale = Stale::all(4096, 4096);
        let rects = stale.take(&stale.bounds());
        assert!(rects.iter().all(|rect| rect.width * rect.height <= MOST), "{rects:?}");
        assert_eq!(rects.iter().map(|rect| rect.width * rect.height).sum::<usize>(), 4096 * 4096);
        assert_eq!(rects.len(), 16);
        let mut none = Stale::all(0, 0);
        assert_eq!(none.take(&rect(0, 0, 10, 10)), []);
    }
}
