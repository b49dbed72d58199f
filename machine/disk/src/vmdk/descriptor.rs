//! The descriptor of a VMDK: lines of `name=value`, and one line for each extent.

use crate::host::HostFile;
use crate::{DiskError, Format};

/// Most bytes of a descriptor.
const MOST: u64 = 1 << 20;
/// Most extents: 2 GiB each make 16 TiB.
const MOST_EXTENTS: usize = 8192;

/// What a descriptor says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub kind: String,
    pub has_parent: bool,
    pub extents: Vec<Named>,
}

/// An extent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub sectors: u64,
    pub role: Role,
}

/// How an extent holds its part of the disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Role {
    Zero,
    Flat { name: String, offset: u64 },
    Sparse { name: String },
}

/// Reads the text at a place in a file.
pub(super) fn read(host: &HostFile, offset: u64, length: u64) -> Result<String, DiskError> {
    if length > MOST {
        return Err(DiskError::damaged(host.path(), Format::Vmdk, "its descriptor is longer than 1 MiB"));
    }
    let mut bytes = vec![0; length as usize];
    host.read_padded(offset, &mut bytes).map_err(DiskError::io(host.path(), "read"))?;
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

impl Descriptor {
    /// Understands a descriptor, or says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.trim_start().starts_with("# Disk DescriptorFile") {
            return Err("it has no descriptor".into());
        }
        let mut found = Self { kind: String::new(), has_parent: false, extents: Vec::new() };
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#') && !line.is_empty()) {
            if let Some(access) = ["RW ", "RDONLY ", "NOACCESS "].into_iter().find(|access| line.starts_with(access)) {
                if access == "NOACCESS " {
                    return Err("one of its extents may not be accessed".into());
                }
                if found.extents.len() == MOST_EXTENTS {
                    return Err(format!("it has more than {MOST_EXTENTS} extents"));
                }
                found.extents.push(extent(&line[access.len()..])?);
            } else if let Some((name, value)) = line.split_once('=') {
                let value = value.trim().trim_matches('"');
                match name.trim() {
                    "createType" => found.kind = value.to_owned(),
                    "parentCID" => found.has_parent = !value.eq_ignore_ascii_case("ffffffff"),
                    _ => {}
                }
            }
        }
        Ok(found)
    }
}

/// The rest of an extent's line: sectors, type, name, offset.
fn extent(line: &str) -> Result<Named, String> {
    let wrong = || format!("the extent {line:?} can't be understood");
    let (sectors, rest) = line.trim_start().split_once(' ').ok_or_else(wrong)?;
    let sectors: u64 = sectors.parse().ok().filter(|sectors| *sectors <= 1 << 52).ok_or_else(wrong)?;
    let (kind, rest) = rest.trim_start().split_once(' ').unwrap_or((rest.trim(), ""));
    let mut parts = rest.trim_start().strip_prefix('"').unwrap_or("").splitn(2, '"');
    let name = parts.next().unwrap_or("").to_owned();
    let offset = parts.next().unwrap_or("").trim();
    let role = match kind {
        "ZERO" => Role::Zero,
        "FLAT" | "VMFS" => {
            let offset = if offset.is_empty() { Ok(0) } else { offset.parse() };
            Role::Flat { name, offset: offset.map_err(|_| wrong())? }
        }
        "SPARSE" => Role::Sparse { name },
        other => {
            return Err(format!(
                "it has extents of type {:?}, which lodge can't read",
                other.chars().take(20).collect::<String>()
            ));
        }
    };
    Ok(Named { sectors, role })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let text = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n\n\
                    RW 4192256 FLAT \"a b-f001.vmdk\" 128\nRDONLY 10 SPARSE \"c.vmdk\"\nRW 7 ZERO\n\
                    ddb.adapterType = \"ide\"\n";
        let found = Descriptor::parse(text).unwrap();
        assert_eq!((found.kind.as_str(), found.has_parent), ("twoGbMaxExtentFlat", false));
        let flat = Role::Flat { name: "a b-f001.vmdk".into(), offset: 128 };
        assert_eq!(found.extents[0], Named { sectors: 4_192_256, role: flat });
        assert_eq!(found.extents[1], Named { sectors: 10, role: Role::Sparse { name: "c.vmdk".into() } });
        assert_eq!(found.extents[2], Named { sectors: 7, role: Role::Zero });
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, expected) in [
            ("nothing", "no descriptor"),
            ("# Disk DescriptorFile\nRW x FLAT \"a\"", "can't be understood"),
            ("# Disk DescriptorFile\nRW 5 SESPARSE \"a\"", "SESPARSE"),
            ("# Disk DescriptorFile\nNOACCESS 5 FLAT \"a\"", "may not be accessed"),
        ] {
            let error = Descriptor::parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(Descriptor::parse("# Disk DescriptorFile\nparentCID=12345678").unwrap().has_parent);
    }
}
