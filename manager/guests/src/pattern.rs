//! Patterns that a whole text has to match, as media rules have them.

use std::fmt;

use regex_lite::Regex;
use serde::{Deserialize, Serialize, Serializer};

/// A regular expression for a whole text. Matching takes time in proportion to the text's length, whatever it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern {
    source: String,
    compiled: Regex,
}

impl Pattern {
    /// Whether all of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }

    /// The expression.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl TryFrom<String> for Pattern {
    type Error = regex_lite::Error;

    fn try_from(source: String) -> Result<Self, Self::Error> {
        Ok(Self { compiled: Regex::new(&format!("^(?:{source})$"))?, source })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_text_has_to_match() {
        let pattern = Pattern::try_from(String::from(r"Debian 1|Debian 12\.\d+")).unwrap();
        assert!(pattern.matches("Debian 12.5") && pattern.matches("Debian 1"));
        assert!(!pattern.matches("Debian 12.5 ") && !pattern.matches("Debian 12") && !pattern.matches("a Debian 1"));
        assert!(Pattern::try_from(String::from("(")).is_err());
    }
}
