//! What an installer's log says of its progress.
//!
//! Debian's main menu names each step as it begins (main-menu of debian-installer); the answers have its log sent to a serial
//! port. Other installers' logs do not come out of the machine.

use crate::debian::INSTALLED;

/// What a line of the log means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A step begins.
    Stage(&'static str),
    /// A step failed, by its name.
    Failed(String),
    /// All is done.
    Installed,
}

/// Debian's steps that take time, and what they do.
const STEPS: &[(&str, &str)] = &[
    ("ethdetect", "looks for network cards"),
    ("hw-detect", "looks for hardware"),
    ("netcfg", "gets an address"),
    ("choose-mirror", "asks the mirror"),
    ("download-installer", "loads the rest of the installer"),
    ("load-cdrom", "loads the rest of the installer"),
    ("disk-detect", "looks for disks"),
    ("partman-base", "makes partitions"),
    ("bootstrap-base", "installs the base system"),
    ("apt-setup-udeb", "asks for packages"),
    ("pkgsel", "installs packages"),
    ("grub-installer", "installs the boot loader"),
    ("nobootloader", "goes without a boot loader"),
    ("finish-install", "finishes"),
];

/// Failures that steps go round in circles for, with nobody to ask: who says it, what, how often it may be said, and the step.
const CIRCLES: &[(&str, &str, u32, &str)] = &[
    ("choose-mirror", "mirror does not support the specified release", 0, "choose-mirror"),
    ("choose-mirror", "architecture not supported by selected mirror", 0, "choose-mirror"),
    // What could not be had is asked for again, which is right with a mirror that is busy.
    ("anna", "package retrieval failed", 4, "download-installer"),
];

/// Reads Debian's installer's log.
#[derive(Clone, Debug, Default)]
pub struct Debian {
    /// How often each of the failures was told of.
    circles: [u32; CIRCLES.len()],
}

impl Debian {
    /// What the next line means, if anything.
    pub fn line(&mut self, line: &str) -> Option<Told> {
        if line.contains(INSTALLED) {
            return Some(Told::Installed);
        }
        // Only what these programs say themselves: what others say may contain anything.
        let (source, text) = line.split_once(": ")?;
        for (times, (who, what, most, step)) in self.circles.iter_mut().zip(CIRCLES) {
            if source.contains(who) && text.contains(what) {
                *times += 1;
                return (*times > *most).then(|| failed(step));
            }
        }
        if source.contains("main-menu") { menu(text) } else { None }
    }
}

/// A failure of a step.
fn failed(name: &str) -> Told {
    let step = STEPS.iter().find(|(step, _)| *step == name);
    Told::Failed(step.map_or_else(|| format!("'{name}'"), |(_, told)| format!("'{name}' ({told})")))
}

/// What the main menu says.
fn menu(text: &str) -> Option<Told> {
    let quoted = |start: &str| {
        let (_, rest) = text.split_once(start)?;
        rest.split_once('\'')
    };
    if let Some((name, _)) = quoted("Menu item '").filter(|(_, rest)| rest.starts_with(" selected")) {
        return STEPS.iter().find(|(step, _)| *step == name).map(|(_, told)| Told::Stage(told));
    }
    let not_done = quoted("Configuring '").or_else(|| quoted("Menu item '"));
    let (name, _) = not_done.filter(|(_, rest)| rest.starts_with(" failed"))?;
    Some(failed(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_failures_are_known() {
        let stage = |line| Debian::default().line(line);
        assert_eq!(
            stage("Nov 22 13:29:57 main-menu[311]: INFO: Menu item 'bootstrap-base' selected"),
            Some(Told::Stage("installs the base system"))
        );
        assert_eq!(stage("Nov 22 13:29:57 main-menu[311]: INFO: Menu item 'localechooser' selected"), None);
        let failed = Some(Told::Failed("'choose-mirror' (asks the mirror)".into()));
        assert_eq!(stage("Nov 22 13:29:57 main-menu[311]: WARNING **: Menu item 'choose-mirror' failed."), failed);
        let text = "main-menu[311]: WARNING **: Configuring 'choose-mirror' failed with error code 1";
        assert_eq!(stage(text), failed);
        assert_eq!(stage("Nov 22 13:40:12 root: lodge: the system is installed"), Some(Told::Installed));
        assert_eq!(stage("Nov 22 13:29:57 apt: Menu item 'pkgsel' failed."), None);
        let text = "x choose-mirror[2456]: WARNING **: mirror does not support the specified release (bookworm)";
        assert_eq!(stage(text), failed);
    }

    #[test]
    fn what_is_tried_in_vain_fails_in_the_end() {
        let mut log = Debian::default();
        let told = (0..5).map(|_| log.line("x anna[2529]: WARNING **: package retrieval failed"));
        let last = Told::Failed("'download-installer' (loads the rest of the installer)".into());
        assert_eq!(told.collect::<Vec<_>>(), [None, None, None, None, Some(last)]);
    }
}
