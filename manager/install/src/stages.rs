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

/// What a line of Debian's installer's log means, if anything.
pub fn debian(line: &str) -> Option<Told> {
    if line.contains(INSTALLED) {
        return Some(Told::Installed);
    }
    // Only what the menu itself says: what programs say may contain anything.
    let (source, text) = line.split_once(": ")?;
    if !source.contains("main-menu") {
        return None;
    }
    let quoted = |start: &str| {
        let (_, rest) = text.split_once(start)?;
        rest.split_once('\'').map(|(name, rest)| (name, rest))
    };
    if let Some((name, _)) = quoted("Menu item '").filter(|(_, rest)| rest.starts_with(" selected")) {
        return STEPS.iter().find(|(step, _)| *step == name).map(|(_, told)| Told::Stage(told));
    }
    let failed = quoted("Configuring '").or_else(|| quoted("Menu item '"));
    let (name, _) = failed.filter(|(_, rest)| rest.starts_with(" failed"))?;
    let step = STEPS.iter().find(|(step, _)| *step == name);
    Some(Told::Failed(step.map_or_else(|| format!("'{name}'"), |(_, told)| format!("'{name}' ({told})"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_failures_are_known() {
        let stage = |line| debian(line);
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
    }
}
