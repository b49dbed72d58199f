//! `.treeinfo` of Fedora and its kin (productmd, "treeinfo file format").

use configparser::ini::Ini;

/// What `.treeinfo` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeInfo {
    /// The distribution's name.
    pub family: String,
    /// Its version.
    pub version: String,
    /// The architecture, as the distribution calls it.
    pub architecture: String,
}

impl TreeInfo {
    /// Understands a file; `None` if it is no such file.
    pub fn parse(text: &str) -> Option<Self> {
        let mut file = Ini::new();
        file.read(text.to_owned()).ok()?;
        // Newer files say it in [release] and [tree], and most repeat it in [general], where older ones say it.
        let either = |places: [(&str, &str); 2]| places.iter().find_map(|(section, key)| file.get(section, key));
        Some(Self {
            family: either([("general", "family"), ("release", "name")])?,
            version: either([("general", "version"), ("release", "version")]).unwrap_or_default(),
            architecture: either([("general", "arch"), ("tree", "arch")]).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_and_newer_files_are_understood() {
        let older = "[general]\nfamily = CentOS\ntimestamp = 1\nversion = 7\narch = x86_64\n";
        let newer = "[header]\ntype = productmd.treeinfo\n[release]\nname = Fedora\nshort = Fedora\nversion = 43\n\
                     [tree]\narch = x86_64\n";
        let found = |text| TreeInfo::parse(text).map(|info| (info.family, info.version, info.architecture));
        assert_eq!(found(older), Some(("CentOS".into(), "7".into(), "x86_64".into())));
        assert_eq!(found(newer), Some(("Fedora".into(), "43".into(), "x86_64".into())));
        assert_eq!(found("[release]\nversion = 1\n"), None);
        assert_eq!(found("[release\n= =\n"), None);
    }
}
