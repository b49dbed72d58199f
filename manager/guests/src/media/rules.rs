//! Which profiles' rules hold for a medium: [`Detection`].

use super::{Kind, MediaError, Medium, Volume};
use crate::{Catalogue, MediaRule, Pattern, Profile};

/// What an image was recognised as.
#[derive(Clone, Debug)]
pub struct Detection<'a> {
    /// The kind of medium.
    pub kind: Kind,
    /// What is on it.
    pub medium: Medium,
    /// The profiles that claim it with the same certainty, in the order of the data; empty if it is not known.
    pub profiles: Vec<&'a Profile>,
    /// Why the first of them does: what holds of what its rule asks, a sentence each.
    pub reasons: Vec<String>,
}

/// Tries all rules. Of those that hold, the ones of most certainty count.
///
/// # Errors
///
/// None holds, and the medium is too damaged to tell.
pub fn apply<'a>(
    kind: Kind,
    medium: Medium,
    volume: &mut Volume<'_>,
    catalogue: &'a Catalogue,
) -> Result<Detection<'a>, MediaError> {
    let mut best = (0, 0);
    let (mut profiles, mut reasons) = (Vec::new(), Vec::new());
    let mut trouble = None;
    for profile in catalogue.profiles() {
        for rule in &profile.media {
            let certainty = rule.certainty();
            if certainty < best {
                continue;
            }
            let found = match holds(rule, &medium, volume) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error @ (MediaError::Read(_) | MediaError::TooMuch)) => return Err(error),
                Err(error) => {
                    trouble.get_or_insert(error);
                    continue;
                }
            };
            if certainty > best {
                profiles.clear();
                best = certainty;
                reasons = found;
            }
            if !profiles.iter().any(|known: &&Profile| std::ptr::eq(*known, profile)) {
                profiles.push(profile);
            }
        }
    }
    match trouble {
        Some(error) if profiles.is_empty() => Err(error),
        _ => Ok(Detection { kind, medium, profiles, reasons }),
    }
}

/// What holds of all that a rule asks; `None` if something does not, or it asks for nothing.
fn holds(rule: &MediaRule, medium: &Medium, volume: &mut Volume<'_>) -> Result<Option<Vec<String>>, MediaError> {
    let tree = medium.tree_info.as_ref();
    let windows = medium.windows.as_ref();
    let texts: [(&Option<Pattern>, Option<&String>, &str); 10] = [
        (&rule.label, Some(&medium.label), "the volume is labelled"),
        (&rule.system, Some(&medium.system), "its system identifier is"),
        (&rule.publisher, Some(&medium.publisher), "its publisher is"),
        (&rule.application, Some(&medium.application), "its application identifier is"),
        (&rule.disk_info, medium.disk_info.as_ref(), ".disk/info says"),
        (&rule.tree_family, tree.map(|tree| &tree.family), ".treeinfo names the family"),
        (&rule.tree_version, tree.map(|tree| &tree.version), ".treeinfo names the version"),
        (&rule.windows_build, windows.map(|image| &image.build), "its Windows image is of build"),
        (&rule.windows_product, windows.map(|image| &image.product), "its Windows image is of type"),
        (&rule.oem, Some(&medium.oem), "the boot sector's OEM name is"),
    ];
    let mut found = Vec::new();
    for (pattern, text, says) in texts {
        let Some(pattern) = pattern else { continue };
        match text {
            Some(text) if pattern.matches(text) => found.push(format!("{says} '{}'", printable(text))),
            _ => return Ok(None),
        }
    }
    if let Some(text) = &rule.boot_text {
        if !volume.boot_sector_holds(text) {
            return Ok(None);
        }
        found.push(format!("the boot sector holds '{text}'"));
    }
    for path in &rule.files {
        if !volume.has(path)? {
            return Ok(None);
        }
        found.push(format!("there is {path}"));
    }
    for path in &rule.absent {
        if volume.has(path)? {
            return Ok(None);
        }
    }
    Ok((!found.is_empty()).then_some(found))
}

/// Text from an image, without what a terminal would take for orders.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
