//! What a check finds.

/// Most messages that are kept; all are counted.
const MOST_MESSAGES: usize = 50;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Contradictions: data may be lost or wrong.
    pub errors: u64,
    /// Clusters that are marked as used and are not: only space is lost.
    pub leaks: u64,
    /// Clusters that hold data of the disk.
    pub clusters: u64,
    /// Bytes of the file up to the last one in use.
    pub end: u64,
    /// What was found, the first of it.
    pub messages: Vec<String>,
    /// Whether what was found has been mended.
    pub repaired: bool,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.errors == 0 && self.leaks == 0
    }

    pub(crate) fn error(&mut self, message: impl FnOnce() -> String) {
        self.errors += 1;
        self.note(message);
    }

    pub(crate) fn leak(&mut self, message: impl FnOnce() -> String) {
        self.leaks += 1;
        self.note(message);
    }

    fn note(&mut self, message: impl FnOnce() -> String) {
        if self.messages.len() < MOST_MESSAGES {
            self.messages.push(message());
        }
    }
}
